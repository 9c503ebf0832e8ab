"""Rotation matrices of rotation vectors and back, with derivatives that stay finite at angles 0 and pi."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpnp_pose.geometry.matrices import product, skew
from diffpnp_pose.geometry.quaternions import matrix_to_quaternion

SERIES_BELOW = 1e-3  # squared angle under which the series are used; four terms are exact to float64 there


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
    small = theta2 < SERIES_BELOW
    safe2 = torch.where(small, 1.0, theta2)  # a harmless 1 in place of small angles, or their derivative is NaN
    theta = safe2.sqrt()
    values = [theta.sin() / theta, 2 * (theta / 2).sin() ** 2 / safe2]
    for k in range(2, count):
        values.append((1.0 / math.factorial(k - 1) - values[k - 2]) / safe2)
    return [torch.where(small, _series(theta2, k + 1), value) for k, value in enumerate(values[:count])]


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
    small = sine2 < SERIES_BELOW
    sine, cosine = torch.where(small, 1.0, sine2).sqrt(), torch.where(small, scalar, 1.0)
    x = sine2 / cosine**2
    near = (2 - x * (2 / 3 - x * (2 / 5 - x * (2 / 7 - x * (2 / 9))))) / cosine  # 2 atan(s/c)/s
    return torch.where(small, near, 2 * torch.atan2(sine, scalar) / sine) * vector
