"""The small convolutional network of the paper's MNIST and Fashion-MNIST rows."""

from __future__ import annotations

from torch import Tensor, nn


class CNN(nn.Module):
    """Two 5x5 convolutions (16 and 32 channels) with ReLU and 2x2 max pooling, dropout of one half, one linear layer.

    Args:
        channels: Of the images.
        image_size: Height and width in pixels, at least 16.
        num_classes: K.

    Shape:
        (B, channels, image_size, image_size) to logits (B, K).
    """

    def __init__(self, channels: int = 1, image_size: int = 28, num_classes: int = 10) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"the CNN needs images of at least 16 pixels, got {image_size}: load them larger")
        side = ((image_size - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(32 * side * side, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
