"""The circle: coordinates of period 2 and angles, their means and how far they spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wrap(w: Tensor) -> Tensor:
    """w brought into [-1, 1] by whole periods of 2."""
    return w - 2 * torch.round(w / 2)


def wrap_periodic(w: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """w (..., d) with its periodic coordinates brought into [-1, 1]."""
    return _choose(wrap(w), w, periodic)


def mean_transform(w: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """Means (B, d) of transforms w (B, S, d): circular for coordinates of period 2, arithmetic for the rest."""
    angles = math.pi * w
    circular = torch.atan2(angles.sin().mean(-2), angles.cos().mean(-2)) / math.pi
    return _choose(circular, w.mean(-2), periodic)


def folded(angles: Tensor) -> Tensor:
    """Angles in radians brought into [-pi, pi]."""
    return torch.atan2(angles.sin(), angles.cos())


def circular_deviation(angles: Tensor, modes: int = 1) -> float:
    """Circular standard deviation in degrees of angles (N,) in radians; of the angles modulo 2 pi / modes.

    sqrt(-2 log R) with R the length of the mean unit vector (Mardia); the usual deviation where the spread is small.
    """
    multiplied = modes * angles.double()
    length = torch.hypot(multiplied.sin().mean(), multiplied.cos().mean()).clamp(1e-12, 1 - 1e-15)
    return math.degrees(float(torch.sqrt(-2 * length.log()))) / modes


def _choose(first: Tensor, second: Tensor, which: tuple[bool, ...]) -> Tensor:
    """Columns of `first` where `which`, of `second` elsewhere."""
    columns = [(first if chosen else second)[..., k] for k, chosen in enumerate(which)]
    return torch.stack(columns, -1)
