"""Standardisation as the first layer of a network, so that images stay in [0, 1] where they are transformed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std per channel, kept with the network's weights.

    Transforms then fill what lies outside an image with black, and not with the mean colour.

    Args:
        mean: (C,), or one number for every channel, on the scale 0..1.
        std: As `mean`, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Standardised images (B, C, H, W)."""
        return (images - self.mean) / self.std
