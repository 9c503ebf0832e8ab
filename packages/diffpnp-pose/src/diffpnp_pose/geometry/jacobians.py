"""The left Jacobian of the rotation group and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.geometry.matrices import product, skew
from diffpnp_pose.geometry.rotations import SERIES_BELOW, rotation_coefficients


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
    small = theta2 < SERIES_BELOW
    half2 = torch.where(small, 1.0, theta2 / 4)
    half = half2.sqrt()
    plain = (1 - half / half.tan()) / (4 * half2)
    return torch.where(small, 1 / 12 + theta2 * (1 / 720 + theta2 * (1 / 30240 + theta2 / 1209600)), plain)
