"""Gaussian target heat-maps."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.heatmaps.grid import Grid, cell_positions


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
