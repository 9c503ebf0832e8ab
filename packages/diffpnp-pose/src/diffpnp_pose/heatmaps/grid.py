"""Where the cells of a heat-map lie in the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Grid = Literal["inclusive", "half_pixel"]


OFFSETS = {"inclusive": 0.0, "half_pixel": 0.5}


def cell_positions(cells: int, length: float, grid: Grid, like: Tensor) -> Tensor:
    """Image coordinates of the cells along one axis.

    Args:
        cells: number of cells.
        length: size of the image along the axis, in pixels.
        grid: where a cell lies.
        like: a tensor with the wanted type and device.

    Returns:
        Coordinates in pixels, `(cells,)`.

    Raises:
        ValueError: the grid is unknown.
    """
    if grid not in OFFSETS:
        raise ValueError(f'grid must be "inclusive" or "half_pixel", got {grid!r}')
    return (torch.arange(cells, dtype=like.dtype, device=like.device) + OFFSETS[grid]) * (length / cells)
