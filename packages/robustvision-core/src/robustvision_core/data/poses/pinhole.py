"""The pinhole camera and its poses; conventions as in `robustvision_core.data.poses.pose_set`."""

from __future__ import annotations

import torch
from torch import Tensor

from robustvision_core.errors import DataError


def project(points: Tensor, R: Tensor, t: Tensor, K: Tensor) -> Tensor:
    """Pixels of object points: the first two of `K (R X + t)` over the third.

    Args:
        points: (..., P, 3) in the object's frame, metres.
        R: (..., 3, 3) rotations, object to camera.
        t: (..., 3), metres.
        K: (..., 3, 3) intrinsics, pixels.

    Returns:
        (..., P, 2) pixels (x, y); points behind the camera are mirrored through it.
    """
    seen = (points @ R.mT + t[..., None, :]) @ K.mT
    return seen[..., :2] / seen[..., 2:]


def nearest_rotation(matrices: Tensor, name: str, tolerance: float = 0.02) -> Tensor:
    """The rotations nearest to matrices that are nearly rotations, as files round and scale them (polar decomposition).

    Args:
        matrices: (N, 3, 3) float64.
        name: What they belong to, for errors.
        tolerance: How far a singular value may be from 1.

    Returns:
        (N, 3, 3) float32.

    Raises:
        DataError: A matrix is not finite, no rotation to within `tolerance`, or a reflection.
    """
    if not bool(matrices.isfinite().all()):
        raise DataError(f"{name}: a rotation matrix holds a value that is not finite")
    u, gains, v = torch.linalg.svd(matrices)
    rotations = u @ v
    bad = ((gains - 1).abs().amax(1) > tolerance) | (torch.linalg.det(rotations) < 0)
    if bool(bad.any()):
        raise DataError(
            f"{name}: {int(bad.sum())} of {len(bad)} matrices are no rotations, the first of item "
            f"{int(bad.nonzero()[0, 0])}: {matrices[bad][0].tolist()}"
        )
    return rotations.float()
