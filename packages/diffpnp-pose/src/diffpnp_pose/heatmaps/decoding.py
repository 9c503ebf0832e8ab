"""Keypoints read from predicted heat-maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpnp_pose.geometry.matrices import at_least_float32, product
from diffpnp_pose.heatmaps.grid import OFFSETS, Grid, cell_positions

Mode = Literal["centre_of_mass", "argmax", "dark"]


def spatial_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities over each map.

    Args:
        logits: maps, `(..., H, W)`.
        temperature: divisor of the logits; smaller is sharper.

    Returns:
        Maps of the same shape, each summing to one, at least float32.
    """
    return (at_least_float32(logits) / temperature).flatten(-2).softmax(-1).view_as(logits)


def centre_of_mass(heatmaps: Tensor, image_size: tuple[int, int], grid: Grid = "inclusive") -> Tensor:
    """Expected position under maps that sum to one (soft-argmax after `spatial_softmax`); differentiable.

    Args:
        heatmaps: nonnegative maps that sum to one, `(..., H, W)`.
        image_size: `(width, height)` of the image, in pixels.
        grid: where a cell lies in the image.

    Returns:
        Pixels, `(..., 2)`, at least float32, under autocast too.
    """
    height, width = heatmaps.shape[-2:]
    heatmaps = at_least_float32(heatmaps)
    x = product(heatmaps.sum(-2), cell_positions(width, image_size[0], grid, heatmaps))
    y = product(heatmaps.sum(-1), cell_positions(height, image_size[1], grid, heatmaps))
    return torch.stack([x, y], -1)


def decode(
    heatmaps: Tensor, image_size: tuple[int, int], *, mode: Mode = "centre_of_mass", grid: Grid = "inclusive"
) -> Tensor:
    """Keypoints of heat-maps.

    Args:
        heatmaps: nonnegative maps, `(..., H, W)`; each summing to one for "centre_of_mass".
        image_size: `(width, height)` of the image, in pixels.
        mode: "centre_of_mass", the only differentiable one; "argmax", the highest cell; "dark", the highest cell moved
            to the vertex of a second-order expansion of the smoothed map's logarithm (Zhang et al. 2020).
        grid: where a cell lies in the image.

    Returns:
        Pixels, `(..., 2)`, at least float32, under autocast too.

    Raises:
        ValueError: the mode is unknown or the maps have fewer than two dimensions.
    """
    if heatmaps.dim() < 2:
        raise ValueError(f"heatmaps must have shape (..., H, W), got {tuple(heatmaps.shape)}")
    if mode == "centre_of_mass":
        return centre_of_mass(heatmaps, image_size, grid)
    if mode not in ("argmax", "dark"):
        raise ValueError(f'mode must be "centre_of_mass", "argmax" or "dark", got {mode!r}')
    height, width = heatmaps.shape[-2:]
    heatmaps = at_least_float32(heatmaps)
    maps = _smoothed(heatmaps) if mode == "dark" else heatmaps
    index = maps.flatten(-2).argmax(-1)
    cell = torch.stack([index % width, index // width], -1).to(heatmaps)
    if mode == "dark":
        cell = cell + _log_vertex(maps, index)
    scale = heatmaps.new_tensor([image_size[0] / width, image_size[1] / height])
    cell_positions(1, 1.0, grid, heatmaps)  # refuses an unknown grid
    return (cell + OFFSETS[grid]) * scale


def _smoothed(heatmaps: Tensor) -> Tensor:
    """Maps smoothed with a 3x3 binomial kernel, borders repeated."""
    flat = heatmaps.reshape(-1, 1, *heatmaps.shape[-2:])
    side = flat.new_tensor([0.25, 0.5, 0.25])
    padded = torch.nn.functional.pad(flat, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(flat.device.type, enabled=False):
        return torch.nn.functional.conv2d(padded, (side[:, None] * side)[None, None]).view_as(heatmaps)


def _log_vertex(maps: Tensor, index: Tensor) -> Tensor:
    """Offset in cells, at most one each way, from the peak to the vertex of the log-map's quadratic; 0 at borders."""
    height, width = maps.shape[-2:]
    x, y = index % width, index // width
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    x, y = x.clamp(1, max(width - 2, 1)), y.clamp(1, max(height - 2, 1))
    logs = maps.clamp_min(1e-12).log().flatten(-2)

    def at(dx: int, dy: int) -> Tensor:
        place = ((y + dy) * width + x + dx).clamp(0, height * width - 1)
        return logs.gather(-1, place[..., None]).squeeze(-1)

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx, yy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = xx * yy - xy * xy
    peaked = inner & (xx < 0) & (determinant > 1e-12)
    safe = torch.where(peaked, determinant, 1.0)
    offset = torch.stack([(xy * gy - yy * gx) / safe, (xy * gx - xx * gy) / safe], -1)
    return torch.where(peaked[..., None], offset.clamp(-1, 1), 0.0)
