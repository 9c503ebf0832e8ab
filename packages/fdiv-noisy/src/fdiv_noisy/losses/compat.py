r"""The forms that were published with the paper where they differ from the right ones, for comparison only.

* `PUBLISHED["reverse_kl"]`, `["sq_hellinger"]` and `["neyman"]` write $e^{x}$ where f-GAN has
  $e^{-v}$. Their gradient lowers the probability of the given label: minimising them trains a classifier that
  avoids it.
* `PUBLISHED["jeffrey"]` takes the conjugate's third-order Taylor polynomial (at most 0.018 off on [-1, 1]).
* `SparseWithoutMembership` subtracts the bias of every pair from every sample. Only the sample's own pair has
  one: with ten classes this over-corrects several times.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fdiv_noisy.divergences import JEFFREY, NEYMAN, REVERSE_KL, SQ_HELLINGER, Divergence
from fdiv_noisy.transition import Sparse

SUFFIX = " (published)"


class _Published(Divergence):
    """A divergence of `PUBLISHED`, pickled by its name there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return published, (self.name.removesuffix(SUFFIX),)


def published(name: str) -> Divergence:
    """The published divergence of that name in `PUBLISHED`."""
    return PUBLISHED[name]


def _variant(of: Divergence, **functions: Any) -> Divergence:
    return dataclasses.replace(_Published(**vars(of)), name=of.name + SUFFIX, **functions)


def _jeffrey_taylor(v: Tensor) -> Tensor:
    return v + v.square() / 4 + v.pow(3) / 16


PUBLISHED: dict[str, Divergence] = {
    "reverse_kl": _variant(REVERSE_KL, g=lambda v: -v.exp(), conjugate_g=lambda v: -1 - v),
    "sq_hellinger": _variant(
        SQ_HELLINGER,
        g=lambda v: -torch.expm1(v),
        conjugate_g=lambda v: torch.expm1(-v),
    ),
    "neyman": _variant(
        NEYMAN,
        g=lambda v: -torch.expm1(v),
        conjugate_g=lambda v: 2 - 2 * (1 - v).sqrt(),
    ),
    "jeffrey": _variant(JEFFREY, conjugate_g=_jeffrey_taylor),
}
"""The published divergences that differ, by name; give one to `fdiv_noisy.FDivergenceLoss`."""


@dataclass(frozen=True, eq=False)
class SparseWithoutMembership:
    """The published sparse correction, a `transition` for `fdiv_noisy.FDivergenceLoss`.

    Attributes:
        noise: The sparse noise model.
    """

    noise: Sparse

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix."""
        return self.noise.matrix()

    def coefficients(self) -> Tensor:
        """The (K, K) correction $I - 1 b^T$, b holding every pair's rates."""
        i, j = self.noise.pairs.unbind(1)
        a, b = self.noise.rates.unbind(1)
        bias = torch.zeros(self.noise.num_classes, dtype=a.dtype, device=a.device)
        bias[j], bias[i] = a, b
        return torch.eye(bias.numel(), dtype=a.dtype, device=a.device) - bias
