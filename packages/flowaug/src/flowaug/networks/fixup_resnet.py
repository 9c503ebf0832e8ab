"""Fixup residual networks without normalisation (Zhang, Dauphin and Ma 2019).

Depth 8 with 16 channels, 75 thousand weights, is what the paper calls a modified ResNet-18 in its CIFAR-10 rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FixupBlock(nn.Module):
    """Two 3x3 convolutions between scalar biases, scaled, beside an average-pooled identity padded with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int, blocks: int) -> None:
        super().__init__()
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(4)])
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.stride, self.extra = stride, outputs - inputs
        nn.init.normal_(self.conv1.weight, std=(2 / (9 * outputs)) ** 0.5 * blocks**-0.5)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        before1, after1, before2, after2 = self.biases
        inner = torch.relu(self.conv1(x + before1) + after1)
        inner = self.conv2(inner + before2) * self.scale + after2
        if self.stride > 1:
            x = F.avg_pool2d(x + before1, 1, self.stride)
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, 0, self.extra))
        return torch.relu(inner + x)


class FixupResNet(nn.Module):
    """Three stages of (depth - 2) / 6 blocks, of `width`, twice and four times as many channels.

    Args:
        channels: Of the images.
        num_classes: K.
        depth: 6 n + 2.
        width: Channels of the first stage.

    Shape:
        (B, channels, H, W) to logits (B, K).

    Raises:
        ValueError: `depth` is not 6 n + 2.
    """

    def __init__(self, channels: int = 3, num_classes: int = 10, depth: int = 8, width: int = 16) -> None:
        super().__init__()
        each, rest = divmod(depth - 2, 6)
        if rest or each < 1:
            raise ValueError(f"depth must be 8, 14, 20 ..., got {depth}")
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_bias = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.stem.weight, std=(2 / (9 * width)) ** 0.5)
        blocks, inputs = [], width
        for stage in range(3):
            for place in range(each):
                outputs = width * 2**stage
                blocks.append(FixupBlock(inputs, outputs, 2 if stage and not place else 1, 3 * each))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head_bias = nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(inputs, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        x = self.blocks(torch.relu(self.stem(images) + self.stem_bias))
        return self.head(x.mean((-2, -1)) + self.head_bias)

    def scalars(self) -> list[nn.Parameter]:
        """The scalar biases and scales, whose learning rate is a tenth of the weights' in Fixup's recipe."""
        return [parameter for parameter in self.parameters() if parameter.numel() == 1]
