"""ResNet-18 (He et al. 2016) for images of about 28 to 64 pixels."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class Block(nn.Module):
    """Twice 3x3 convolution and batch norm, added to an identity or a 1x1 projection, ReLU after each."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """Four stages of two blocks, 64 to 512 channels, with a 3x3 stem and no first pooling, as small images need.

    Args:
        channels: Of the images.
        num_classes: K.

    Shape:
        (B, channels, H, W) to logits (B, K); features are (B, 512).
    """

    def __init__(self, channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise((64, 64, 128, 256, 512))):
            blocks += [Block(inputs, outputs, 2 if stage else 1), Block(outputs, outputs, 1)]
        stem = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        self.layers = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(512, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 512), what the linear layer takes."""
        return self.layers(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
