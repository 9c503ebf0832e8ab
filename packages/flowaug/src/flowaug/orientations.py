"""Directions on the circle: where images point, and how far they spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def turn_of(matrices: Tensor) -> Tensor:
    """How far warps by sampling matrices (..., 2, 3) turn the content counter-clockwise, in radians (...).

    The angle of the rotation nearest to the linear part, for square images.
    """
    return torch.atan2(matrices[..., 1, 0] - matrices[..., 0, 1], matrices[..., 0, 0] + matrices[..., 1, 1])


def folded(angles: Tensor) -> Tensor:
    """Angles in radians brought into [-pi, pi]."""
    return torch.atan2(angles.sin(), angles.cos())


def circular_deviation(angles: Tensor, modes: int = 1) -> float:
    """Circular standard deviation in degrees of angles (N,) in radians; of the angles modulo 2 pi / modes.

    sqrt(-2 log R) with R the length of the mean unit vector (Mardia); the usual deviation where the spread is small.
    """
    turned = modes * angles.double()
    length = torch.hypot(turned.sin().mean(), turned.cos().mean()).clamp(1e-12, 1 - 1e-15)
    return math.degrees(float(torch.sqrt(-2 * length.log()))) / modes
