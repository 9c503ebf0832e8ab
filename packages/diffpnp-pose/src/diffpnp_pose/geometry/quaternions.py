"""Unit quaternions and angles of rotation matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.devices import kept
from diffpnp_pose.geometry.matrices import product, skew


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


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrices of quaternions, the inverse of `matrix_to_quaternion`.

    Args:
        q: quaternions `(w, x, y, z)` of any length but zero, `(..., 4)`.

    Returns:
        Rotation matrices, `(..., 3, 3)`.
    """
    q = q / q.norm(dim=-1, keepdim=True)
    cross = skew(q[..., 1:])
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * (q[..., :1, None] * cross + product(cross, cross))


def rotation_angle(R: Tensor) -> Tensor:
    """Angle of rotation matrices, exact next to 0 and pi (where an arc cosine of the trace loses half the digits).

    Args:
        R: rotation matrices, `(..., 3, 3)`.

    Returns:
        Angles in radians in `[0, pi]`, `(...)`.
    """
    q = matrix_to_quaternion(R)
    return 2 * torch.atan2(q[..., 1:].norm(dim=-1), q[..., 0])
