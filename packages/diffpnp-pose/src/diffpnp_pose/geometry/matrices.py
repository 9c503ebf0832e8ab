"""Products that keep their digits, and the matrices of cross products."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(value: Tensor) -> Tensor:
    """The tensor in its own type, or in float32 where that has fewer digits."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` in at least float32, under autocast too, whose bfloat16 has errors of a pixel at coordinates of 320."""
    with torch.autocast(a.device.type, enabled=False):
        return at_least_float32(a) @ at_least_float32(b)


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
