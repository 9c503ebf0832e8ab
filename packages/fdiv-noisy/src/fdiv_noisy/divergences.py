r"""Eight f-divergences in variational form.

$D_f(P\|Q) = \sum q\, f(p/q) = \sup_g E_P[g] - E_Q[f^*(g)]$, with $f$ convex, $f(1)=0$, on
$v \ge 0$ (Nowozin et al. 2016; Wei and Liu 2021, equation 2 and table 1). The supremum is reached at
$g^*(r) = f'(r)$ of the density ratio r. Training fixes g instead (Wei and Liu 2021, tips of algorithm 1): each
divergence has an increasing $g_f(v)$ of the predicted probability v, whose conjugate $f^*(g_f(v))$ is
finite for every v, in closed form, so that nothing is clamped.

Table 1 of Wei and Liu prints three entries that do not fit their own conjugates. Here the matching ones stand:
J-S without the factor one half (it is twice the Jensen-Shannon divergence), Pearson as $\sum (p-q)^2/q$, and
the TV optimum as $\frac12 \mathrm{sign}(r - 1)$. The fixed g of reverse KL, squared Hellinger and Neyman are
f-GAN's; the forms published with the paper for these three reward the wrong label (see `fdiv_noisy.losses.compat`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

ElementWise = Callable[[Tensor], Tensor]
LOG2 = math.log(2.0)
INF = math.inf


@dataclass(frozen=True)
class Divergence:
    r"""One f-divergence; every function is elementwise on tensors of any shape.

    Attributes:
        name: Its key in `DIVERGENCES`.
        f: The generator $f(v)$, v > 0.
        conjugate: $f^*(u) = \sup_{v \ge 0} uv - f(v)$, for u in `domain`.
        domain: Smallest and largest u with a finite conjugate that a g may take.
        optimal_g: $g^*(r) = f'(r)$ of the density ratio r > 0.
        g: The fixed, increasing $g_f(v)$ of a probability v that training uses.
        conjugate_g: $f^*(g_f(v))$ in closed form.
    """

    name: str
    f: ElementWise
    conjugate: ElementWise
    domain: tuple[float, float]
    optimal_g: ElementWise
    g: ElementWise
    conjugate_g: ElementWise

    def __reduce__(self) -> tuple[Any, ...]:
        """Those of `DIVERGENCES` are pickled by name: their functions have none."""
        if DIVERGENCES.get(self.name) is self:
            return get, (self.name,)
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        """$D_f(P\\|Q)$ of distributions over the last dimension, p and q > 0 of shape (..., Z); gives (...)."""
        return (q * self.f(p / q)).sum(-1)


def wright_omega(z: Tensor) -> Tensor:
    """The solution w > 0 of w + log w = z, that is Lambert's W(exp z), elementwise and twice differentiable.

    Newton's method from the left of the root of a concave increasing function never leaves its side; two of its steps
    carry the gradient, which makes first and second derivatives exact at the root. For z in about [-80, 1e6].
    """
    w = torch.sigmoid(z).detach()
    for _ in range(8):
        w = _newton_step(w, z.detach())
    return _newton_step(_newton_step(w, z), z)


def _newton_step(w: Tensor, z: Tensor) -> Tensor:
    return w * (1 + z - w.log()) / (1 + w)


def _jeffrey_conjugate(u: Tensor) -> Tensor:
    w = wright_omega(1 - u)
    return w + 1 / w + u - 2


def _pearson_conjugate(u: Tensor) -> Tensor:
    return torch.where(u >= -2, u.square() / 4 + u, -torch.ones_like(u))


def _identity(v: Tensor) -> Tensor:
    return v


def _half_tanh(v: Tensor) -> Tensor:
    return torch.tanh(v) * 0.5


def _one_minus_exp(v: Tensor) -> Tensor:
    return -torch.expm1(-v)


TV = Divergence(
    "tv",
    f=lambda v: (v - 1).abs() / 2,
    conjugate=_identity,
    domain=(-0.5, 0.5),
    optimal_g=lambda r: torch.sign(r - 1) / 2,
    g=_half_tanh,
    conjugate_g=_half_tanh,
)
JS = Divergence(
    "js",
    f=lambda v: torch.xlogy(v, v) - (v + 1) * ((v + 1) / 2).log(),
    conjugate=lambda u: -(2 - u.exp()).log(),
    domain=(-INF, LOG2),
    optimal_g=lambda r: LOG2 + (r / (r + 1)).log(),
    g=lambda v: LOG2 - softplus(-v),
    conjugate_g=lambda v: v + softplus(-v) - LOG2,
)
PEARSON = Divergence(
    "pearson",
    f=lambda v: (v - 1).square(),
    conjugate=_pearson_conjugate,
    domain=(-INF, INF),
    optimal_g=lambda r: 2 * (r - 1),
    g=_identity,
    conjugate_g=lambda v: v.square() / 4 + v,
)
NEYMAN = Divergence(
    "neyman",
    f=lambda v: (1 - v).square() / v,
    conjugate=lambda u: 2 - 2 * (1 - u).sqrt(),
    domain=(-INF, 1.0),
    optimal_g=lambda r: 1 - r.pow(-2),
    g=_one_minus_exp,
    conjugate_g=lambda v: -2 * torch.expm1(-v / 2),
)
KL = Divergence(
    "kl",
    f=lambda v: torch.xlogy(v, v),
    conjugate=lambda u: (u - 1).exp(),
    domain=(-INF, INF),
    optimal_g=lambda r: 1 + r.log(),
    g=_identity,
    conjugate_g=lambda v: (v - 1).exp(),
)
REVERSE_KL = Divergence(
    "reverse_kl",
    f=lambda v: -v.log(),
    conjugate=lambda u: -1 - (-u).log(),
    domain=(-INF, 0.0),
    optimal_g=lambda r: -1 / r,
    g=lambda v: -(-v).exp(),
    conjugate_g=lambda v: v - 1,
)
JEFFREY = Divergence(
    "jeffrey",
    f=lambda v: (v - 1) * v.log(),
    conjugate=_jeffrey_conjugate,
    domain=(-INF, INF),
    optimal_g=lambda r: 1 + r.log() - 1 / r,
    g=_identity,
    conjugate_g=_jeffrey_conjugate,
)
SQ_HELLINGER = Divergence(
    "sq_hellinger",
    f=lambda v: (v.sqrt() - 1).square(),
    conjugate=lambda u: u / (1 - u),
    domain=(-INF, 1.0),
    optimal_g=lambda r: 1 - r.pow(-0.5),
    g=_one_minus_exp,
    conjugate_g=torch.expm1,
)

DIVERGENCES: dict[str, Divergence] = {
    d.name: d for d in (TV, JS, PEARSON, NEYMAN, KL, REVERSE_KL, JEFFREY, SQ_HELLINGER)
}
"""Every divergence by name."""


def get(divergence: str | Divergence) -> Divergence:
    """A divergence by name, or the given one.

    Raises:
        ValueError: There is none of that name.
    """
    if isinstance(divergence, Divergence):
        return divergence
    if divergence not in DIVERGENCES:
        raise ValueError(f"unknown divergence {divergence!r}: expected one of {', '.join(DIVERGENCES)}")
    return DIVERGENCES[divergence]
