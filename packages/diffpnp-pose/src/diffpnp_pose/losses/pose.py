"""Losses of the solved pose through its projected points."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.geometry.projection import project
from diffpnp_pose.pnp.result import PnPResult


def _point_error(first: Tensor, second: Tensor, valid: Tensor | None) -> Tensor:
    """Mean squared coordinate difference over valid items, 0 if there is none."""
    if first.shape != second.shape:
        raise ValueError(f"image points {tuple(first.shape)} and {tuple(second.shape)} differ in shape")
    difference = first - second
    if valid is None:
        return difference.square().mean()
    # a bad pose may project to infinity: choose before squaring, or the gradient is 0 times infinity
    error = torch.where(valid[..., None, None], difference, 0.0).square().mean((-2, -1))
    return error.sum() / valid.sum().clamp_min(1)


def projection_loss(projected: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """`l_proj`: squared distance of the points projected with the solved pose from the true image points.

    Args:
        projected: `pi(z | y, K)` in pixels, `(..., n, 2)`.
        target: true image points, `(..., n, 2)`.
        valid: items to average over, `(...)`; all when None.

    Returns:
        A scalar in squared pixels.
    """
    return _point_error(projected, target, valid)


def regulariser(predicted: Tensor, projected: Tensor, valid: Tensor | None = None) -> Tensor:
    """`l_reg`: squared distance of the predicted image points from those projected with the pose solved from them.

    Args:
        predicted: predicted image points in pixels, `(..., n, 2)`.
        projected: `pi(z | y, K)`, `(..., n, 2)`.
        valid: items to average over, `(...)`; all when None.

    Returns:
        A scalar in squared pixels.
    """
    return _point_error(predicted, projected, valid)


def pose_loss(
    predicted: Tensor, projected: Tensor, target: Tensor, valid: Tensor | None = None, weight: float = 0.5
) -> Tensor:
    """`l_p = weight (l_reg + l_proj)`: end to end, without heat-map targets.

    Args:
        predicted: predicted image points in pixels, `(..., n, 2)`.
        projected: `pi(z | y, K)`, `(..., n, 2)`.
        target: true image points, `(..., n, 2)`.
        valid: items to average over, `(...)`.
        weight: 0.5 as in the published code; 1 gives the paper's plain sum.

    Returns:
        A scalar in squared pixels.
    """
    return weight * (regulariser(predicted, projected, valid) + projection_loss(projected, target, valid))


def reproject(result: PnPResult, points_3d: Tensor, K: Tensor) -> Tensor:
    """Image points of the solved pose, `pi(z | y, K)`, for the losses above; differentiable.

    Args:
        result: a solved batch.
        points_3d: object points, `(..., n, 3)`.
        K: camera matrices, `(..., 3, 3)`.

    Returns:
        Pixels, `(..., n, 2)`.
    """
    return project(points_3d, result.R, result.t, K)
