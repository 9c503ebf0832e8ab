"""From sums over the points to gradient and Hessian.

With `V = (q, 1)` a point moves by `T d`, `T = sum_v V_v T_v`, where the `T_v (3, 6)` are constant. Both the gradient
`sum T^T g` and the Hessian's terms `sum T^T G T` are hence linear in sums over the points of a few weights (the parts
of g and G that differ from point to point) times the ten products of two entries of V. So the points are gone through
for these sums alone, and what follows is one constant matrix for all items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.devices import kept

_PRODUCTS = ((0, 3), (1, 3), (2, 3), (3, 3), (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of entries of V
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # entries of a symmetric 3x3 matrix
# entries of `metric_of`: row, column, sign, and where the value stands in (A^T A, A, 1)
_METRIC = (
    *((0, 0, 1, 0), (1, 0, 1, 1), (3, 0, 1, 3), (2, 1, -1, 4), (2, 2, -1, 6), (4, 1, -1, 5), (4, 2, -1, 7)),
    *((5, 3, 1, 8), (6, 4, 1, 4), (6, 5, 1, 6), (7, 4, 1, 5), (7, 5, 1, 7), (8, 6, -1, 8)),
)


@kept
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Which entries of q are multiplied, `(2, 6)`; `metric_of` as a map `(9, 72)`; and `_assembly` of both kinds."""
    metric = torch.zeros(9, 9, 8, dtype=dtype)
    for row, column, sign, place in _METRIC:
        metric[place, row, column] = sign
    maps = torch.stack([_assembly(False), _assembly(True)])
    return torch.tensor(_PAIRS, device=device).T, metric.view(9, 72).to(device), maps.to(device, dtype)


def _assembly(exact: bool) -> Tensor:
    """Map `(90, 42)` from sums, of six entries of G and three of g with ten products, to Hessian and gradient."""
    T = torch.zeros(4, 3, 6, dtype=torch.float64)
    T[3, range(3), range(3, 6)] = 1.0
    for a, b, v in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        T[v, a, b], T[v, b, a] = 1.0, -1.0
    found = torch.zeros(9, 10, 7, 6, dtype=torch.float64)
    for k, (a, b) in enumerate(_PAIRS):
        for m, (v, w) in enumerate(_PRODUCTS):
            both = [(i, j, x, y) for i, j in {(a, b), (b, a)} for x, y in {(v, w), (w, v)}]
            found[k, m, :6] = sum(torch.outer(T[x, i], T[y, j]) for i, j, x, y in both)
    found[6:, :4, 6] = T.transpose(0, 1)
    for a, v in [(a, v) for a in range(3) for v in range(3) if exact]:
        found[6 + a, v, a, v] += 0.5  # the rotation term
        found[6 + a, v, v, a] += 0.5
        found[6 + a, v, range(3), range(3)] -= float(a == v)
    return found.view(90, 42)


def products(q: Tensor) -> Tensor:
    """The ten products of two entries of `(q, 1)`, `(B, 10, n)`, of points `q (B, 3, n)`."""
    first, second = _constants(q.dtype, q.device)[0]
    return torch.cat([q, torch.ones_like(q[:, :1]), q.index_select(1, first) * q.index_select(1, second)], 1)


def metric_of(affine: Tensor) -> Tensor:
    """Maps `(B, 9, 8)` from the weights of `linearise` to the six entries of G and the three of g.

    They hold what a camera's affine block `(B, 2, 2)` has to do with it.
    """
    entries = torch.cat([torch.bmm(affine.mT, affine).flatten(1), affine.flatten(1)], 1)
    entries = torch.nn.functional.pad(entries, (0, 1), value=1.0)
    return torch.mm(entries, _constants(affine.dtype, affine.device)[1]).view(-1, 9, 8)


def assemble(sums: Tensor, metric: Tensor, exact: bool) -> Tensor:
    """Hessians, and gradients as a seventh row, `(B, 7, 6)`, from sums `(B, 10, 8)` of products times weights."""
    parts = torch.bmm(metric, sums.mT).flatten(1)
    return torch.mm(parts, _constants(sums.dtype, sums.device)[2][int(exact)]).view(-1, 7, 6)
