"""The pre-activation ResNet-18 for 32-pixel images (He et al. 2016b) of the paper's CIFAR rows."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside an identity or a 1x1 projection of the first activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        active = self.relu(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(active)
        return skipped + self.conv2(self.relu(self.norm2(self.conv1(active))))


class PreActResNet18(nn.Module):
    """Four stages of two pre-activation blocks, 64 to 512 channels.

    Args:
        channels: Of the images.
        num_classes: K.
        final_activation: Batch norm and ReLU before the average pool, as pre-activation needs them. False leaves them
            out, as the network published with the paper does.

    Shape:
        (B, channels, H, W) to logits (B, K).
    """

    def __init__(self, channels: int = 3, num_classes: int = 10, final_activation: bool = True) -> None:
        super().__init__()
        widths = [64, 64, 128, 256, 512]
        blocks = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            blocks += [PreActBlock(inputs, outputs, 2 if stage else 1), PreActBlock(outputs, outputs, 1)]
        end = [nn.BatchNorm2d(512), nn.ReLU()] if final_activation else []
        self.stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks, *end)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.pool(self.blocks(self.stem(images))).flatten(1))
