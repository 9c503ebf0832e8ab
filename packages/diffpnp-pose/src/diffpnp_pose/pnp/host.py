"""NumPy on the tensors' own memory, where many small steps take less time so than in torch."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch

Array = Any  # numpy.ndarray, which need not be there


@functools.cache
def numpy() -> ModuleType | None:
    """NumPy, which torch does not need; None where it is missing."""
    try:
        import numpy as module
    except ImportError:
        return None
    return module


def damped_step(hessian: Array, gradient: Array, damping: Array, least: float = 0.0) -> Array:
    """Levenberg-Marquardt steps `(B, k)`; torch solves where NumPy raises, which it does for one singular item.

    Args:
        hessian: `(B, k, k)`.
        gradient: `(B, k)`.
        damping: `(B,)`, relative to the diagonal.
        least: added to the diagonal besides.
    """
    np: Any = numpy()
    raised, size = hessian.copy(), hessian.shape[-1]
    diagonal = raised.reshape(-1, size * size)[:, :: size + 1]
    diagonal += np.abs(diagonal) * damping[:, None] + least
    try:
        return -np.linalg.solve(raised, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:
        right = torch.from_numpy(np.ascontiguousarray(gradient))
        return -torch.linalg.solve_ex(torch.from_numpy(raised), right)[0].numpy()
