"""LeNet-5 with tanh, the network of the paper's MNIST and Fashion-MNIST rows."""

from __future__ import annotations

from torch import Tensor, nn


class LeNetTanh(nn.Module):
    """Two 5x5 convolutions (6 and 16 channels) with tanh and 2x2 max pooling, then 120, 84 and K units.

    Args:
        channels: Of the images.
        num_classes: K.
        image_size: Height and width in pixels, at least 12.

    Shape:
        (B, channels, image_size, image_size) to logits (B, K).

    Raises:
        ValueError: The images are too small.
    """

    def __init__(self, channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        side = (image_size // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet needs images of at least 12 pixels, got {image_size}: load them larger")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(16 * side * side, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
