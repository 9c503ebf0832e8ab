"""Residual blocks and the multi-resolution exchange module that the networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the resolution at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def activated(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(convolution(inputs, outputs, size, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016).

    Args:
        channels: input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            activated(channels, channels), convolution(channels, channels), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, channels, H, W)` to the same shape."""
        return torch.relu(x + self.body(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al. 2016).

    Args:
        inputs: input channels.
        outputs: output channels, four times those in between.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.body = nn.Sequential(
            activated(inputs, middle, 1),
            activated(middle, middle, 3),
            convolution(middle, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        matching = [convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(*matching)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        return torch.relu(self.shortcut(x) + self.body(x))


class PreactivatedBottleneck(nn.Module):
    """Bottleneck with normalisation and ReLU before each convolution (He et al. 2016b), as hourglasses use it.

    Args:
        inputs: input channels.
        outputs: output channels, twice those in between.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        layers: list[nn.Module] = []
        for before, after, size in ((inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1)):
            layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, size, padding=size // 2)]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        return self.shortcut(x) + self.body(x)


class Exchange(nn.Module):
    """One HRNet module: residual units on every branch, then every branch receives the sum of all (Sun et al. 2019).

    Branch k has stride `2^k` relative to branch 0. A branch goes down by strided 3x3 convolutions and up by a 1x1
    convolution and nearest-neighbour upsampling.

    Args:
        channels: channels of every branch.
        blocks: residual units per branch.
        outputs: number of branches to give back; the last module of a network needs only the first.
    """

    def __init__(self, channels: Sequence[int], blocks: int, outputs: int | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in channels)
        targets = channels[: len(channels) if outputs is None else outputs]
        self.fusions = nn.ModuleList(
            nn.ModuleList(_fusion(source, target, i, j, channels) for i, source in enumerate(channels))
            for j, target in enumerate(targets)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps one feature map per branch, `(B, channels[k], H / 2^k, W / 2^k)`, to the same for the outputs."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for j, row in enumerate(self.fusions):
            parts = [_to_size(fusion(x), features[j]) for fusion, x in zip(row, features, strict=True)]  # pyright: ignore[reportArgumentType]
            fused.append(torch.relu(torch.stack(parts).sum(0)))
        return fused


def _fusion(source: int, target: int, i: int, j: int, channels: Sequence[int]) -> nn.Module:
    """The path from branch i to branch j, without the final upsampling."""
    if i == j:
        return nn.Identity()
    if i > j:
        return nn.Sequential(convolution(source, target, 1), nn.BatchNorm2d(target))
    steps: list[nn.Module] = [activated(channels[i], channels[i], 3, 2) for _ in range(j - i - 1)]
    return nn.Sequential(*steps, convolution(source, target, 3, 2), nn.BatchNorm2d(target))


def _to_size(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[-2:] == like.shape[-2:] else nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest")
