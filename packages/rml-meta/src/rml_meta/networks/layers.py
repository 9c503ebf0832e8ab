"""Layers that the backbones share."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A norm of (B, channels, H, W): over the batch, over groups of channels (8, or as many as divide), or none.

    Group norm has no statistics of the batch: a query is then judged alone, the same in training and use.

    Raises:
        ValueError: There is no such norm.
    """
    if kind not in get_args(Norm):
        raise ValueError(f"unknown norm {kind!r}: expected one of {', '.join(get_args(Norm))}")
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, 8), channels) if kind == "group" else nn.Identity()


def init_conv(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 2 / fan out), their biases 0 (He et al. 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Backbone(nn.Module):
    """Images to features, or to feature maps.

    Attributes:
        features: D, size of the flat features.
        map_shape: (C, H, W) of the maps.
        flat: Whether the output is flat.
    """

    features: int
    map_shape: tuple[int, int, int]
    flat: bool

    def set_output(self, channels: int, side: int, flat: bool) -> None:
        """Say what the output is: maps of `channels` and `side` pixels, flattened or not."""
        self.map_shape, self.flat, self.features = (channels, side, side), flat, channels * side * side

    def finish(self, maps: Tensor) -> Tensor:
        """The maps (B, C, H, W), flattened to (B, D) if so asked."""
        return maps.flatten(1) if self.flat else maps
