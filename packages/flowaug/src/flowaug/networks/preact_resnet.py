"""The pre-activation ResNet-18 (He et al. 2016b) of InstaAug's TinyImageNet rows."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside an identity or a 1x1 projection of the first activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        projects = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        active = self.relu(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(active)
        return skipped + self.conv2(self.relu(self.norm2(self.conv1(active))))


class PreActResNet18(nn.Module):
    """Four stages of two pre-activation blocks, of 64 to 512 channels.

    Args:
        channels: Of the images.
        num_classes: K.
        stem_stride: 2 halves the images at once, as for TinyImageNet's 64 pixels; 1 for 32 pixels.

    Shape:
        (B, channels, H, W) to logits (B, K).
    """

    def __init__(self, channels: int = 3, num_classes: int = 200, stem_stride: int = 2) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise([64, 64, 128, 256, 512])):
            blocks += [PreActBlock(inputs, outputs, 2 if stage else 1), PreActBlock(outputs, outputs, 1)]
        self.stem = nn.Conv2d(channels, 64, 3, stem_stride, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks, nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.blocks(self.stem(images)))
