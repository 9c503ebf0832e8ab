"""The two sprites: a lighthouse and a fish, neither like itself mirrored or turned by any angle."""

from __future__ import annotations

import torch
from torch import Tensor

from robustvision_core.data.offline.shapes import polygon

NAMES = ("lighthouse", "fish")
SHARP = 4  # samples a pixel each way

_Layer = tuple[tuple[float, float, float], tuple[tuple[float, float], ...]]
"""A colour and the outline it fills: places (x, y) in [-1, 1] with y down, inside the unit circle."""

_LIGHTHOUSE: tuple[_Layer, ...] = (
    ((0.95, 0.85, 0.35), ((0.12, -0.62), (0.80, -0.50), (0.80, -0.22), (0.12, -0.46))),  # beam, to the right
    ((0.30, 0.55, 0.35), ((-0.68, 0.66), (-0.30, 0.46), (0.34, 0.46), (0.62, 0.66))),  # rock
    ((0.92, 0.92, 0.95), ((-0.18, -0.38), (0.14, -0.38), (0.28, 0.50), (-0.32, 0.50))),  # tower
    ((0.85, 0.15, 0.15), ((-0.21, -0.16), (0.17, -0.16), (0.21, 0.06), (-0.25, 0.06))),  # band
    ((0.25, 0.30, 0.45), ((-0.16, -0.66), (0.12, -0.66), (0.12, -0.38), (-0.16, -0.38))),  # lantern
    ((0.75, 0.20, 0.20), ((-0.24, -0.64), (-0.02, -0.88), (0.20, -0.64))),  # roof
)
_FISH: tuple[_Layer, ...] = (
    ((0.20, 0.45, 0.85), ((-0.88, -0.34), (-0.40, 0.00), (-0.80, 0.42), (-0.62, 0.00))),  # tail
    ((0.95, 0.60, 0.15), ((-0.30, -0.28), (-0.10, -0.80), (0.36, -0.30))),  # back fin
    ((0.25, 0.70, 0.80), ((-0.52, 0.00), (-0.20, -0.34), (0.34, -0.38), (0.84, -0.06), (0.50, 0.28), (-0.16, 0.34))),
    ((0.95, 0.95, 0.80), ((-0.30, 0.20), (0.70, 0.08), (0.48, 0.28), (-0.14, 0.34))),  # belly
    ((0.10, 0.15, 0.30), ((0.42, -0.22), (0.58, -0.22), (0.58, -0.06), (0.42, -0.06))),  # eye
    ((0.90, 0.35, 0.25), ((-0.06, 0.04), (0.22, 0.04), (0.00, 0.24))),  # side fin
)


def draw_sprites(size: int) -> tuple[Tensor, tuple[str, str]]:
    """(2, 3, size, size) float32 in [0, 1] on black, and what they are called."""
    axis = (torch.arange(SHARP * size) + 0.5) * (2 / (SHARP * size)) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    place = torch.stack([x, y], -1)
    sprites = torch.zeros(2, 3, *x.shape)
    for sprite, layers in zip(sprites, (_LIGHTHOUSE, _FISH), strict=True):
        for colour, outline in layers:
            inside = polygon(*outline)(place) < 0
            sprite[:, inside] = torch.tensor(colour)[:, None]
    return torch.nn.functional.avg_pool2d(sprites, SHARP), NAMES
