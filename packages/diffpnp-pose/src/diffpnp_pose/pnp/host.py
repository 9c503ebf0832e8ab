"""What `refine` computes, in NumPy on the tensors' own memory: many points take less time so than in torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
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


@dataclass
class HostProblem:
    """The arrays of a `Problem`: `x (B, 2, n)`, `z (B, 3, n)`, `affine (B, 2, 2)`, `c (B, n)`, and `delta (B, 1)`."""

    x: Array
    z: Array
    affine: Array
    c: Array
    delta: Array | None

    def linearise(self, R: Array, t: Array, exact: bool) -> tuple[Array, Array, Array]:
        """Cost `(B,)`, Hessian `(B, 6, 6)` and gradient `(B, 6)`, as `linearise` gives them."""
        np: Any = numpy()
        batch, _, n = self.z.shape
        q = R @ self.z
        p = q + t[:, :, None]
        inverse = 1 / p[:, 2]
        u = self.affine @ (p[:, :2] * inverse[:, None])
        A = np.empty((batch, 7, 2, n))
        r = np.subtract(u, self.x, out=A[:, 6])
        np.multiply(self.affine[:, :, 0, None], inverse[:, None], out=A[:, 3])
        np.multiply(self.affine[:, :, 1, None], inverse[:, None], out=A[:, 4])
        np.multiply(u, -inverse[:, None], out=A[:, 5])
        qx, qy, qz = q[:, 0, None], q[:, 1, None], q[:, 2, None]
        np.subtract(qy * A[:, 5], qz * A[:, 4], out=A[:, 0])
        np.subtract(qz * A[:, 3], qx * A[:, 5], out=A[:, 1])
        np.subtract(qx * A[:, 4], qy * A[:, 3], out=A[:, 2])
        loss, weight = self._huber(r)
        c = self.c if weight is None else self.c * weight
        cA = A * c[:, None, None]
        system = A.reshape(batch, 7, 2 * n) @ cA.reshape(batch, 7, 2 * n).transpose(0, 2, 1)
        hessian, gradient = system[:, :6, :6], system[:, 6, :6]
        cost = system[:, 6, 6] / 2 if loss is None else (self.c * loss).sum(-1)
        if exact:
            hessian = hessian + self._curvature(q, inverse, (cA[:, :6] * r[:, None]).sum(2))
            if weight is not None:
                hessian = hessian - self._outlier_curvature(A[:, :6], r, weight)
        return np.where((p[:, 2] > 1e-6).all(1), cost, np.inf), hessian, gradient

    def _huber(self, r: Array) -> tuple[Array | None, Array | None]:
        if self.delta is None:
            return None, None
        np: Any = numpy()
        square = (r * r).sum(1)
        length = np.sqrt(np.maximum(square, 1e-300))
        inside = length <= self.delta
        loss = np.where(inside, square / 2, self.delta * length - self.delta * self.delta / 2)
        return loss, np.where(inside, 1.0, self.delta / length)

    @staticmethod
    def _curvature(q: Array, inverse: Array, lever: Array) -> Array:
        """The second-derivative terms; `lever (B, 6, n)` is `c T^T g`."""
        np: Any = numpy()
        back = np.concatenate([q[:, :2] * inverse[:, None], inverse[:, None]], 1) @ lever.transpose(0, 2, 1)
        depth = np.zeros((len(q), 6, 6))
        depth[:, 0], depth[:, 1], depth[:, 5] = back[:, 1], -back[:, 0], back[:, 2]
        terms = -depth - depth.transpose(0, 2, 1)
        rotation = lever[:, 3:] @ q.transpose(0, 2, 1)
        terms[:, :3, :3] += (rotation + rotation.transpose(0, 2, 1)) / 2
        trace = rotation[:, 0, 0] + rotation[:, 1, 1] + rotation[:, 2, 2]
        terms.reshape(-1, 36)[:, 0:15:7] -= trace[:, None]
        return terms

    def _outlier_curvature(self, J: Array, r: Array, weight: Array) -> Array:
        np: Any = numpy()
        inside = weight >= 1
        along = (J * r[:, None]).sum(2)
        factor = np.where(inside, 0.0, self.c * weight / np.where(inside, 1.0, (r * r).sum(1)))
        return (along * factor[:, None]) @ along.transpose(0, 2, 1)


@functools.cache
def _half_hat() -> Array:
    """The `(3, 9)` map from a vector to the cross-product matrix of its half."""
    np: Any = numpy()
    hat = np.zeros((3, 3, 3))
    for i, j, k in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        hat[i, j, k], hat[i, k, j] = 0.5, -0.5
    return hat.reshape(3, 9)


def rotated(R: Array, d: Array) -> Array:
    """`rotated` of arrays `(B, 3, 3)` and `(B, 3)`."""
    hat = (d @ _half_hat()).reshape(-1, 3, 3)
    once = hat @ R
    return R + (8 / (4 + (d * d).sum(-1)))[:, None, None] * (once + hat @ once)


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
