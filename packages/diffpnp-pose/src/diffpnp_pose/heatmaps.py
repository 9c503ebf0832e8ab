"""Heat-maps: Gaussian targets, and keypoints read from predicted maps.

Coordinates are pixels of the input image, x then y. A grid says where cell `i` of `W` lies in an image `width` wide:
    * "inclusive": `i / W * width`, the top left corner of the cell, as in the code published with the paper;
    * "half_pixel": `(i + 1/2) / W * width`, the cell's centre (as in DSNT), in which resizing an image moves nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpnp_pose.geometry import at_least_float32, product

Grid = Literal["inclusive", "half_pixel"]
Mode = Literal["centre_of_mass", "argmax", "dark"]

_OFFSETS = {"inclusive": 0.0, "half_pixel": 0.5}


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
    if grid not in _OFFSETS:
        raise ValueError(f'grid must be "inclusive" or "half_pixel", got {grid!r}')
    return (torch.arange(cells, dtype=like.dtype, device=like.device) + _OFFSETS[grid]) * (length / cells)


def gaussian_targets(
    keypoints: Tensor,
    map_size: tuple[int, int],
    image_size: tuple[int, int],
    *,
    std: float = 0.035,
    grid: Grid = "inclusive",
    border_corrected: bool = False,
) -> Tensor:
    """Target heat-maps: Gaussians around the keypoints that sum to one.

    The published targets spread over `std` of the width in x and of the height in y (11.2 and 8.4 px at 320x240), and
    are cut off at the border, so that their centre of mass is not the keypoint: it is off by 7.7 px for a keypoint on
    the border of an 80x60 map. `border_corrected` tilts each cut Gaussian, `exp(-(u - m)^2/2s^2 + a u)`, until its
    centre of mass is the keypoint (Newton's method on the tilt `a`, axis by axis).

    Args:
        keypoints: image points in pixels, `(..., J, 2)`.
        map_size: `(W, H)` of the maps, in cells.
        image_size: `(width, height)` of the image, in pixels.
        std: standard deviation as a fraction of the image's size along each axis.
        grid: where a cell lies in the image.
        border_corrected: make the centre of mass the keypoint where the grid can express it.

    Returns:
        Maps, `(..., J, H, W)`, each summing to one.

    Raises:
        ValueError: keypoints are not `(..., J, 2)`, or std is not positive.
    """
    if keypoints.dim() < 2 or keypoints.shape[-1] != 2:
        raise ValueError(f"keypoints must have shape (..., J, 2), got {tuple(keypoints.shape)}")
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    axes = []
    for axis in (0, 1):
        cells = cell_positions(map_size[axis], image_size[axis], grid, keypoints)
        centre, sigma = keypoints[..., axis, None], std * image_size[axis]
        logits = -((cells - centre) ** 2) / (2 * sigma**2)
        axes.append(_tilted(logits, cells, centre, sigma) if border_corrected else logits.softmax(-1))
    return axes[1][..., :, None] * axes[0][..., None, :]


def _tilted(logits: Tensor, cells: Tensor, centre: Tensor, sigma: float) -> Tensor:
    """Weights along one axis whose mean is the centre, moved into the inner 99.9 % of the grid where it is outside."""
    margin = 5e-4 * (cells[-1] - cells[0])
    wanted = centre.clamp(cells[0] + margin, cells[-1] - margin)
    offset = (cells - cells.mean()) / sigma
    tilt = torch.zeros_like(centre)
    for _ in range(60):
        weights = (logits + tilt * offset).softmax(-1)
        mean = (weights * offset).sum(-1, keepdim=True)
        variance = (weights * (offset - mean) ** 2).sum(-1, keepdim=True)
        step = ((wanted - cells.mean()) / sigma - mean) / variance.clamp_min(1e-6)
        tilt = tilt + step.clamp(-2, 2)  # the mean is monotone in the tilt; bounded steps keep Newton's method safe
    return (logits + tilt * offset).softmax(-1)


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
    return (cell + _OFFSETS[grid]) * scale


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
