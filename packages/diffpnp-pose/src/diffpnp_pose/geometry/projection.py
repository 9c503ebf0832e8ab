"""The pinhole camera: object points to camera coordinates and to pixels."""

from __future__ import annotations

from torch import Tensor

from diffpnp_pose.distortion import Distortion
from diffpnp_pose.geometry.matrices import product
from diffpnp_pose.geometry.rotations import so3_exp


def transform(points: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """Points of the object in camera coordinates, `X_camera = R X_object + t`.

    Args:
        points: `(..., n, 3)`.
        R: rotation matrices, `(..., 3, 3)`.
        t: translations, `(..., 3)`.

    Returns:
        Points, `(..., n, 3)`.
    """
    return product(points, R.mT) + t[..., None, :]


def project(points: Tensor, R: Tensor, t: Tensor, K: Tensor, distortion: Distortion | None = None) -> Tensor:
    """Pixels of object points seen by a pinhole camera, `dehomogenise(K (R X + t))`.

    Args:
        points: object points, `(..., n, 3)`.
        R: rotation matrices, `(..., 3, 3)`.
        t: translations, `(..., 3)`.
        K: camera matrices with third row `(0, 0, 1)`, `(..., 3, 3)`.
        distortion: that of the lens, if it has one.

    Returns:
        Pixels, `(..., n, 2)`. Points behind the camera are projected through the pin hole all the same; a point in
        the plane of the camera centre gives infinities.
    """
    camera = transform(points, R, t)
    rays = camera[..., :2] / camera[..., 2:]
    if distortion is not None:
        rays = distortion.distort(rays)
    return product(rays, K[..., :2, :2].mT) + K[..., None, :2, 2]


def project_pose(points: Tensor, pose: Tensor, K: Tensor, distortion: Distortion | None = None) -> Tensor:
    """`project` for a pose vector `(w, t)`.

    Args:
        points: object points, `(..., n, 3)`.
        pose: rotation vector and translation, `(..., 6)`.
        K: camera matrices, `(..., 3, 3)`.
        distortion: that of the lens, if it has one.

    Returns:
        Pixels, `(..., n, 2)`.
    """
    return project(points, so3_exp(pose[..., :3]), pose[..., 3:], K, distortion)
