"""From sums over the points to gradient and Hessian.

With `V = (q, 1)` a point moves by `T d`, `T = sum_v V_v T_v`, where the `T_v (3, 6)` are constant. Both the gradient
`sum T^T g` and the Hessian's terms `sum T^T G T` are hence linear in sums over the points of a few weights (the parts
of g and G that differ from point to point) times the ten products of two entries of V. So the points are gone through
for these sums alone, and what follows is one constant matrix for all items.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from diffpnp_pose.devices import kept

_PRODUCTS = ((0, 3), (1, 3), (2, 3), (3, 3), (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of entries of V
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # entries of a symmetric 3x3 matrix
# T_v: the entries of each row, (column, value)
_T = (
    ((), ((2, 1.0),), ((1, -1.0),)),
    (((2, -1.0),), (), ((0, 1.0),)),
    (((1, 1.0),), ((0, -1.0),), ()),
    (((3, 1.0),), ((4, 1.0),), ((5, 1.0),)),
)
# entries of `metric_of`: row, column, sign, and where the value stands in (A^T A, A, 1)
_METRIC = (
    *((0, 0, 1, 0), (1, 0, 1, 1), (3, 0, 1, 3), (2, 1, -1, 4), (2, 2, -1, 6), (4, 1, -1, 5), (4, 2, -1, 7)),
    *((5, 3, 1, 8), (6, 4, 1, 4), (6, 5, 1, 6), (7, 4, 1, 5), (7, 5, 1, 7), (8, 6, -1, 8)),
)


@kept
def _picked(device: torch.device) -> Tensor:
    """Which entries of q are multiplied, `(2, 6)`."""
    return torch.tensor(list(zip(*_PAIRS, strict=True)), device=device)


@kept
def _metric(dtype: torch.dtype, device: torch.device) -> Tensor:
    """`metric_of` as a map `(9, 72)`."""
    rows = [[0.0] * 72 for _ in range(9)]
    for row, column, sign, place in _METRIC:
        rows[place][8 * row + column] = float(sign)
    return torch.tensor(rows, dtype=dtype, device=device)


@kept
def _assembly(exact: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Map `(90, 42)` from sums, of six entries of G and three of g with ten products, to Hessian and gradient."""
    return torch.tensor(_entries(exact), dtype=dtype, device=device)


@functools.cache
def _entries(exact: bool) -> list[list[float]]:
    """`_assembly` in plain numbers, which a traced graph does not take for operations."""
    rows = [[0.0] * 42 for _ in range(90)]
    for k, (a, b) in enumerate(_PAIRS):
        for m, (v, w) in enumerate(_PRODUCTS):
            for x, i, y, j in {(x, i, y, j) for i, j in ((a, b), (b, a)) for x, y in ((v, w), (w, v))}:
                for row, first in _T[x][i]:
                    for column, second in _T[y][j]:
                        rows[10 * k + m][6 * row + column] += first * second
    for a, v in itertools.product(range(3), range(4)):
        row = rows[10 * (6 + a) + v]
        for column, value in _T[v][a]:
            row[36 + column] = value
        if exact and v < 3:  # the rotation term
            row[6 * a + v] += 0.5
            row[6 * v + a] += 0.5
            for i in range(3):
                row[7 * i] -= float(a == v)
    return rows


def products(q: Tensor) -> Tensor:
    """The ten products of two entries of `(q, 1)`, `(B, 10, n)`, of points `q (B, 3, n)`."""
    first, second = _picked(q.device)
    return torch.cat([q, torch.ones_like(q[:, :1]), q.index_select(1, first) * q.index_select(1, second)], 1)


def metric_of(affine: Tensor) -> Tensor:
    """Maps `(B, 9, 8)` from the weights of `linearise` to the six entries of G and the three of g.

    They hold what a camera's affine block `(B, 2, 2)` has to do with it.
    """
    entries = torch.cat([torch.bmm(affine.mT, affine).flatten(1), affine.flatten(1)], 1)
    entries = torch.nn.functional.pad(entries, (0, 1), value=1.0)
    return torch.mm(entries, _metric(affine.dtype, affine.device)).view(affine.shape[0], 9, 8)


def assemble(sums: Tensor, metric: Tensor, exact: bool) -> Tensor:
    """Hessians, and gradients as a seventh row, `(B, 7, 6)`, from sums `(B, 10, 8)` of products times weights."""
    parts = torch.bmm(metric, sums.mT).flatten(1)
    return torch.mm(parts, _assembly(exact, sums.dtype, sums.device)).view(sums.shape[0], 7, 6)
