"""Coefficients of EPnP's control points from the distances between them.

With `Q_p` the products of the basis' edges of pair p and `d_p` its distance, `sum_p (beta^T Q_p beta - d_p^2)^2` is a
polynomial of fourth degree in few unknowns: linear guesses for every kernel size, Gauss-Newton steps from all of them,
Newton's from the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.devices import kept, readable

_SEARCH_STEPS, _BETA_STEPS = 5, 20  # from every start, and from the best
_DAMPING, _LITTLE_DAMPING = 1e-3, 1e-6  # of the first step of either
_SHORT = 1e-5  # relative step of Newton's method from which the recorded one ends at rounding
# products beta_i beta_j solved for linearly in each start, by kernel size
_SPACE_STARTS = (
    ((0, 0),),
    ((0, 0), (0, 1), (1, 1)),
    ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2)),
    ((0, 0), (0, 1), (0, 2), (0, 3)),
)
_PLANE_STARTS = (((0, 0),), ((0, 0), (0, 1), (1, 1)), ((0, 0), (0, 1), (0, 2)))


@kept
def _start_places(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Where the products of each of S starts stand, how often they count, and where `beta_0 beta_j` is among them.

    Places among the `size^2` products, `(5 S,)`, and factors, `(S, 5)`, zero where a start has fewer than five; places
    among the five, `(S, size - 1)`, and whether the start has that product.
    """
    starts = _SPACE_STARTS if size == 4 else _PLANE_STARTS
    padded = [[*products, *[(0, 0)] * (5 - len(products))] for products in starts]
    places = torch.tensor([i * size + j for products in padded for i, j in products])
    counts = [len(products) for products in starts]
    factors = [[(1.0 + (i != j)) * (k < m) for k, (i, j) in enumerate(p)] for p, m in zip(padded, counts, strict=True)]
    mixed = [[(0, j) in products for j in range(1, size)] for products in starts]
    at = [[products.index((0, j)) if (0, j) in products else 0 for j in range(1, size)] for products in starts]
    found = places, torch.tensor(factors, dtype=dtype), torch.tensor(at), torch.tensor(mixed, dtype=dtype)
    return tuple(value.to(device) for value in found)


def beta_starts(Q: Tensor, d2: Tensor) -> Tensor:
    """Coefficients `(B, S, size)` from the linearised distance equations, one guess per kernel size."""
    (batch, _, size), pairs = Q.shape, d2.shape[1]
    places, factors, at, mixed = _start_places(size, Q.dtype, Q.device)
    columns = Q.view(-1, pairs, size * size).index_select(2, places).view(-1, pairs, *factors.shape) * factors
    L = columns.transpose(1, 2).flatten(0, 1)  # (B S, pairs, 5)
    normal = torch.bmm(L.mT, L).view(-1, *factors.shape, 5)
    right = torch.matmul(L.mT.reshape(batch, factors.numel(), pairs), d2[..., None]).view(batch, *factors.shape)
    ridge = 1e-12 * normal.diagonal(dim1=2, dim2=3).sum(-1, keepdim=True) + 1e-30
    solved = torch.linalg.solve_ex(normal + torch.diag_embed(ridge + (factors == 0)), right)[0]
    first = solved[..., :1].abs().clamp_min(1e-12).sqrt()
    rest = solved.gather(2, at.expand(batch, -1, -1)) * mixed * solved[..., :1].sign() / first
    return torch.cat([first, rest], 2)


@dataclass
class Model:
    """The distance equations at some coefficients: residuals `r = beta^T Q beta - d2` with derivatives `2 J`.

    Attributes:
        system: products of the columns of `[J | r]`, `(B, size + 1, size + 1)`.
        residual: r, `(B, pairs, 1)`.
    """

    system: Tensor
    residual: Tensor

    @property
    def value(self) -> Tensor:
        """Sums of squares, `(B, 1)`."""
        return self.system[:, -1, -1:]

    @property
    def gradient(self) -> Tensor:
        """Gradients of a quarter of them, `(B, size)`."""
        return self.system[:, :-1, -1]

    def hessian(self, Q: Tensor, exact: bool) -> Tensor:
        """Hessians of the same, or Gauss-Newton's part of them, `(B, size, size)`."""
        first = 2 * self.system[:, :-1, :-1]
        if not exact:
            return first
        pairs = self.residual.shape[1]
        return first + torch.bmm(self.residual.mT, Q.view(-1, pairs, Q.shape[2] ** 2)).view_as(first)


def distance_model(Q: Tensor, d2: Tensor, beta: Tensor) -> Model:
    """The distance equations `Q (B, pairs size, size)`, `d2 (B, pairs)` at coefficients `beta (B, size)`."""
    column = beta[..., None]
    J = torch.bmm(Q, column).view(*d2.shape, beta.shape[1])
    residual = torch.baddbmm(d2[..., None], J, column, beta=-1)
    both = torch.cat([J, residual], 2)
    return Model(torch.bmm(both.mT, both), residual)


@dataclass
class _Descent:
    """Coefficients `(B, size)` on their way to a minimum, the model there, and the next step's damping `(B, 1)`."""

    beta: Tensor
    model: Model
    damping: Tensor

    def step(self, Q: Tensor, d2: Tensor, exact: bool) -> Tensor:
        """Try a damped step, Newton's or Gauss-Newton's; give what was tried."""
        hessian = self.model.hessian(Q, exact)
        raised = hessian + torch.diag_embed(hessian.diagonal(dim1=1, dim2=2).abs() * self.damping + 1e-30)
        tried = self.beta - torch.linalg.solve_ex(raised, self.model.gradient)[0]
        trial = distance_model(Q, d2, tried)
        self._take(tried, trial, trial.value <= self.model.value)
        return tried

    def _take(self, tried: Tensor, trial: Model, accept: Tensor) -> None:
        easier = self.damping * 0.1
        if readable(accept) and bool(accept.all()):  # the same values in fewer operations
            self.beta, self.model, self.damping = tried, trial, easier
            return
        wide = accept[..., None]
        self.beta = torch.where(accept, tried, self.beta)
        system = torch.where(wide, trial.system, self.model.system)
        self.model = Model(system, torch.where(wide, trial.residual, self.model.residual))
        self.damping = torch.where(accept, easier, self.damping * 10)


def _at(Q: Tensor, d2: Tensor, beta: Tensor, damping: float) -> _Descent:
    return _Descent(beta, distance_model(Q, d2, beta), torch.full_like(beta[:, :1], damping))


def approach(Q: Tensor, d2: Tensor, beta: Tensor) -> Tensor:
    """A few Gauss-Newton steps from every start."""
    descent = _at(Q, d2, beta, _DAMPING)
    for _ in range(_SEARCH_STEPS):
        descent.step(Q, d2, exact=False)
    return descent.beta


def descend(Q: Tensor, d2: Tensor, beta: Tensor) -> Tensor:
    """Newton steps to the minimum.

    An item whose step is short is frozen; on a CPU the loop ends once all are, which changes no result.
    """
    descent = _at(Q, d2, beta, _LITTLE_DAMPING)
    ends, active = beta, torch.ones_like(descent.damping, dtype=torch.bool)
    for _ in range(_BETA_STEPS):
        before = descent.beta
        tried = descent.step(Q, d2, exact=True)
        ends = torch.where(active, descent.beta, ends)
        active = active & ((tried - before).abs().amax(-1, True) > _SHORT * before.abs().amax(-1, True))
        if readable(active) and not active.any():
            break
    return ends
