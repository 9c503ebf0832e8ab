"""A perceptron of the pixels, which knows nothing of transforms: the classifier of rotation discovery."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers with ReLU on the flattened image.

    Args:
        channels: Of the images.
        num_classes: K.
        image_size: Height and width in pixels.
        width: Hidden units; 256 as published.

    Shape:
        (B, channels, image_size, image_size) to logits (B, K).
    """

    def __init__(self, channels: int = 3, num_classes: int = 4, image_size: int = 32, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * image_size**2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.layers(images)
