"""Stacked hourglass (Newell et al. 2016) with every stack supervised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffpnp_pose.networks.blocks import PreactivatedBottleneck, activated


@dataclass(frozen=True)
class HourglassSize:
    """Sizes of a stacked hourglass.

    Attributes:
        width: channels of the features.
        depth: resolution halvings inside each hourglass.
        stacks: number of hourglasses.
    """

    width: int = 128
    depth: int = 2
    stacks: int = 4


HOURGLASS_SIZES = {"paper": HourglassSize(), "tiny": HourglassSize(width=32, stacks=2)}


class Hourglass(nn.Module):
    """One hourglass: down to `2^-depth` of the resolution and up again, with a skip path at every scale.

    Args:
        width: channels.
        depth: halvings.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.skip, self.down = PreactivatedBottleneck(width, width), PreactivatedBottleneck(width, width)
        inner = Hourglass(width, depth - 1) if depth > 1 else PreactivatedBottleneck(width, width)
        self.inner, self.up = inner, PreactivatedBottleneck(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, width, H, W)` to the same shape."""
        low = self.up(self.inner(self.down(nn.functional.max_pool2d(x, 2, ceil_mode=True))))
        return self.skip(x) + nn.functional.interpolate(low, size=x.shape[-2:], mode="bilinear", align_corners=False)


class StackedHourglass(nn.Module):
    """Heat-maps of every stack at a quarter of the image's resolution.

    The published configuration put a ReLU on the predictions, after which all stacks but the last stayed zero; there is
    none here.

    Args:
        keypoints: number of maps.
        size: a name of `HOURGLASS_SIZES` or the sizes themselves; "paper" has four stacks of depth 2 and width 128.

    Raises:
        ValueError: the size is unknown.
    """

    def __init__(self, keypoints: int = 9, size: str | HourglassSize = "paper") -> None:
        super().__init__()
        if isinstance(size, str):
            if size not in HOURGLASS_SIZES:
                raise ValueError(f"size must be one of {', '.join(HOURGLASS_SIZES)} or sizes, got {size!r}")
            size = HOURGLASS_SIZES[size]
        width = size.width
        self.stem = nn.Sequential(
            activated(3, width // 2, 7, 2),
            PreactivatedBottleneck(width // 2, width),
            nn.MaxPool2d(2),
            PreactivatedBottleneck(width, width),
            PreactivatedBottleneck(width, width),
        )
        self.hourglasses = nn.ModuleList(Hourglass(width, size.depth) for _ in range(size.stacks))
        self.features = nn.ModuleList(
            nn.Sequential(PreactivatedBottleneck(width, width), activated(width, width, 1)) for _ in range(size.stacks)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, keypoints, 1) for _ in range(size.stacks))
        self.back = nn.ModuleList(nn.Conv2d(width + keypoints, width, 1) for _ in range(size.stacks - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images to the logits of every stack.

        Args:
            images: `(B, 3, H, W)`, H and W multiples of 4.

        Returns:
            One tensor `(B, keypoints, H / 4, W / 4)` per stack.
        """
        x, outputs = self.stem(images), []
        for k, (hourglass, features, head) in enumerate(zip(self.hourglasses, self.features, self.heads, strict=True)):
            y = features(hourglass(x))
            outputs.append(head(y))
            if k < len(self.back):
                x = x + self.back[k](torch.cat([y, outputs[-1]], 1))
        return outputs

    def pose_maps(self, outputs: list[Tensor]) -> Tensor:
        """The logits that keypoints are read from: the last stack's."""
        return outputs[-1]


def hourglass(keypoints: int = 9, size: str | HourglassSize = "paper") -> StackedHourglass:
    """A `StackedHourglass`; see there."""
    return StackedHourglass(keypoints, size)
