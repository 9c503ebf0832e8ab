"""A small convolutional network, enough for digits: 29,578 parameters at 3 channels, 28 pixels and 10 classes."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three times 3x3 convolution, batch norm, ReLU and 2x2 max pooling (16, 32, 64 channels), one linear layer.

    Args:
        channels: Of the images.
        image_size: Height and width in pixels, at least 8.
        num_classes: K.

    Shape:
        (B, channels, image_size, image_size) to logits (B, K).
    """

    def __init__(self, channels: int = 3, image_size: int = 28, num_classes: int = 10) -> None:
        super().__init__()
        if image_size < 8:
            raise ValueError(f"the network needs images of at least 8 pixels, got {image_size}: load them larger")
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((channels, 16, 32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(64 * (image_size // 8) ** 2, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 64 (image_size // 8)^2), what the linear layer takes."""
        return self.layers(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
