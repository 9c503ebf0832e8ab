"""Rotations and the pinhole camera, with derivatives that stay finite at angles 0 and pi.

Conventions, used in the whole package:
    * points are rows in memory, `(..., n, 3)`, and columns in formulas: `X_camera = R X_object + t`;
    * a pose is `(w, t)`: the rotation vector `w` (axis times angle in radians, as in `cv2.Rodrigues`), then the
      translation `t` in the unit of the object's points;
    * the camera looks along +z, image x grows with camera x and image y with camera y; a camera whose x axis is
      flipped (UAVA's) is a `K` with negative `fx`;
    * `K` is `[[fx, skew, cx], [k10, fy, cy], [0, 0, 1]]` in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpnp_pose.devices import kept
from diffpnp_pose.distortion import Distortion

_SERIES_BELOW = 1e-3  # squared angle under which the series are used; four terms are exact to float64 there


def at_least_float32(value: Tensor) -> Tensor:
    """The tensor in its own type, or in float32 where that has fewer digits."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` in at least float32, under autocast too, whose bfloat16 has errors of a pixel at coordinates of 320."""
    with torch.autocast(a.device.type, enabled=False):
        return at_least_float32(a) @ at_least_float32(b)


def _series(x: Tensor, first: int) -> Tensor:
    """sum_k (-x)^k / (2k + first)!, the series shared by sin, 1 - cos and their successors."""
    c0, c1, c2, c3 = (1.0 / math.factorial(2 * k + first) for k in range(4))
    return c0 + x * (-c1 + x * (c2 - c3 * x))


def rotation_coefficients(theta2: Tensor, count: int = 2) -> list[Tensor]:
    """The functions of the angle `a` that rotations and their derivatives are made of, smooth at 0.

    Args:
        theta2: squared angles, `(...)`.
        count: how many to compute, up to five.

    Returns:
        The first of `sin(a)/a`, `(1 - cos(a))/a^2`, `(1 - first)/a^2`, `(1/2 - second)/a^2`, `(1/6 - third)/a^2`.
    """
    small = theta2 < _SERIES_BELOW
    safe2 = torch.where(small, 1.0, theta2)  # a harmless 1 in place of small angles, or their derivative is NaN
    theta = safe2.sqrt()
    values = [theta.sin() / theta, 2 * (theta / 2).sin() ** 2 / safe2]
    for k in range(2, count):
        values.append((1.0 / math.factorial(k - 1) - values[k - 2]) / safe2)
    return [torch.where(small, _series(theta2, k + 1), value) for k, value in enumerate(values[:count])]


def skew(v: Tensor) -> Tensor:
    """Cross-product matrix: `skew(v) @ u = v x u`.

    Args:
        v: vectors, `(..., 3)`.

    Returns:
        Antisymmetric matrices, `(..., 3, 3)`.
    """
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def axial(M: Tensor) -> Tensor:
    """The vector `(..., 3)` in the antisymmetric part of matrices `(..., 3, 3)`: twice `v` for `skew(v)`."""
    return torch.stack([M[..., 2, 1] - M[..., 1, 2], M[..., 0, 2] - M[..., 2, 0], M[..., 1, 0] - M[..., 0, 1]], -1)


def so3_exp(w: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors (Rodrigues' formula).

    Args:
        w: rotation vectors in radians, `(..., 3)`; every derivative is finite at 0.

    Returns:
        Rotation matrices, `(..., 3, 3)`.
    """
    a, b = rotation_coefficients((w * w).sum(-1))
    hat = skew(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + a[..., None, None] * hat + b[..., None, None] * product(hat, hat)


def _outer_product(entries: Tensor) -> Tensor:
    """`4 q q^T` row by row, `(..., 16)`, from the nine entries of a rotation and a one, `(..., 10)`; linear.

    With a zero for the one it is Davenport's matrix of any 3x3 matrix, whose leading eigenvector is the quaternion of
    the nearest rotation.
    """
    a, b, c, d, e, f, g, h, i, one = entries.unbind(-1)
    wx, wy, wz = h - f, c - g, d - b
    xy, xz, yz = b + d, c + g, f + h
    rows = [one + a + e + i, wx, wy, wz, wx, one + a - e - i, xy, xz]
    rows += [wy, xy, one - a + e - i, yz, wz, xz, yz, one - a - e + i]
    return torch.stack(rows, -1)


@kept
def outer_product_matrix(dtype: torch.dtype, device: torch.device) -> Tensor:
    """`4 q q^T` of `_outer_product` as a matrix `(10, 16)`: two operations instead of forty."""
    return _outer_product(torch.eye(10, dtype=dtype, device=device))


def matrix_to_quaternion(R: Tensor) -> Tensor:
    """Unit quaternions `(w, x, y, z)` with `w >= 0` of rotation matrices.

    The largest of the four components is the divisor, so nothing is lost at any angle.

    Args:
        R: rotation matrices, `(..., 3, 3)`.

    Returns:
        Quaternions, `(..., 4)`.
    """
    entries = torch.nn.functional.pad(R.flatten(-2), (0, 1), value=1.0)
    # a sum of products, since a matrix product would lose digits under autocast
    four_qq = (entries[..., None] * outer_product_matrix(R.dtype, R.device)).sum(-2).unflatten(-1, (4, 4))
    largest = four_qq.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*R.shape[:-2], 1, 4)
    row = four_qq.gather(-2, largest).squeeze(-2)
    q = row / row.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def so3_log(R: Tensor) -> Tensor:
    """Rotation vectors of rotation matrices, of length at most pi.

    Derivatives are finite everywhere, at the identity and next to pi too; at exactly pi the sign of the axis is
    arbitrary, and the map jumps there.

    Args:
        R: rotation matrices, `(..., 3, 3)`.

    Returns:
        Rotation vectors in radians, `(..., 3)`.
    """
    q = matrix_to_quaternion(R)
    scalar, vector = q[..., :1], q[..., 1:]
    sine2 = (vector * vector).sum(-1, keepdim=True)
    small = sine2 < _SERIES_BELOW
    sine, cosine = torch.where(small, 1.0, sine2).sqrt(), torch.where(small, scalar, 1.0)
    x = sine2 / cosine**2
    near = (2 - x * (2 / 3 - x * (2 / 5 - x * (2 / 7 - x * (2 / 9))))) / cosine  # 2 atan(s/c)/s
    return torch.where(small, near, 2 * torch.atan2(sine, scalar) / sine) * vector


def left_jacobian(w: Tensor) -> Tensor:
    """Left Jacobian `J` of the rotation group: `exp(w + dw) = exp(J dw) exp(w)` to first order.

    Args:
        w: rotation vectors in radians, `(..., 3)`.

    Returns:
        Jacobians, `(..., 3, 3)`; singular only at angles that are multiples of 2 pi other than 0.
    """
    _, b, c = rotation_coefficients((w * w).sum(-1), 3)
    hat = skew(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + b[..., None, None] * hat + c[..., None, None] * product(hat, hat)


def left_jacobian_inverse(w: Tensor) -> Tensor:
    """Inverse of `left_jacobian`, in closed form.

    Args:
        w: rotation vectors in radians with angles under 2 pi, `(..., 3)`.

    Returns:
        Inverse Jacobians, `(..., 3, 3)`.
    """
    hat = skew(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye - hat / 2 + left_jacobian_inverse_factor(w)[..., None, None] * product(hat, hat)


def left_jacobian_inverse_factor(w: Tensor) -> Tensor:
    """The factor `k` in `J^-1 = I - [w]x/2 + k [w]x^2`, for vectors `(..., 3)`; returns `(...)`."""
    theta2 = (w * w).sum(-1)
    small = theta2 < _SERIES_BELOW
    half2 = torch.where(small, 1.0, theta2 / 4)
    half = half2.sqrt()
    plain = (1 - half / half.tan()) / (4 * half2)
    return torch.where(small, 1 / 12 + theta2 * (1 / 720 + theta2 * (1 / 30240 + theta2 / 1209600)), plain)


def rotation_angle(R: Tensor) -> Tensor:
    """Angle of rotation matrices, exact next to 0 and pi (where an arc cosine of the trace loses half the digits).

    Args:
        R: rotation matrices, `(..., 3, 3)`.

    Returns:
        Angles in radians in `[0, pi]`, `(...)`.
    """
    q = matrix_to_quaternion(R)
    return 2 * torch.atan2(q[..., 1:].norm(dim=-1), q[..., 0])


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
