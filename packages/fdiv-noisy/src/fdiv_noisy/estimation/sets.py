r"""The transition matrix from the labels of typical samples of each class.

For each class a set of samples that almost surely belong to it is found from their out-of-fold posteriors; the noisy
labels of the set, which the posteriors have not seen, are draws from the class's row of T. A set that mixes classes
gives $\hat T = A T$ with a row-stochastic A, so $|\det \hat T| \le |\det T|$: of several candidate
families of sets the one with the largest determinant is the purest, which noisy labels alone can tell.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities

SMALLEST_SHARE = 0.1  # a set that shrinks to less than this share of its first size has lost its class
FLOOR = 0.02  # mass spread over a row of T before its logarithm is taken: posteriors are no exact rows of T


class AnchorSets(NamedTuple):
    """An estimated transition matrix and what it rests on.

    Attributes:
        transition: (K, K) float32, rows sum to 1; a class without samples has an identity row.
        sizes: (K,) int64, labels counted for each row.
    """

    transition: Tensor
    sizes: Tensor

    def standard_error(self) -> Tensor:
        """(K, K) standard error of each entry: a share of `sizes` labels, with one pseudo-count per row."""
        sizes = self.sizes[:, None].to(self.transition.dtype)
        share = (self.transition * sizes + 1 / self.transition.shape[0]) / (sizes + 1)
        return (share * (1 - share) / sizes.clamp_min(1)).sqrt()


def anchor_sets(probs: Tensor, labels: Tensor, *, fraction: float = 0.4, steps: int = 5) -> AnchorSets:
    """Estimate T by counting the noisy labels of each class's most typical samples.

    The first sets are the samples with the largest probability of the class, as in anchor points (Patrini et al.
    2017), but many, and with their own labels instead of their probabilities: sampling error shrinks, calibration
    does not matter. Where two classes share a label about evenly (pair-flip noise of 45 %) these sets mix them, so
    that each step then takes the samples whose posterior is nearest, in Kullback-Leibler divergence, to a row of the
    last T. The T of largest determinant is kept.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels (`cross_fit_probabilities`).
        labels: (N,) int64 noisy labels.
        fraction: Share of a class's samples that its set holds, in (0, 1]. Smaller sets are purer where classes
            overlap, larger ones have less sampling error.
        steps: Most refinements of the first sets.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    check_probabilities(probs, labels)
    if not 0 < fraction <= 1 or steps < 0:
        raise ValueError(f"fraction must be in (0, 1] and steps >= 0, got {fraction} and {steps}")
    k = probs.shape[1]
    sizes = (fraction * torch.bincount(labels, minlength=k)).ceil().long()
    sets = [probs[:, c].topk(int(sizes[c])).indices for c in range(k)]
    best = last = _count(sets, labels, k)
    smallest = (SMALLEST_SHARE * best.sizes).ceil()
    negative_entropy = -torch.special.entr(probs).sum(1)
    for _ in range(steps):
        last = _count(_nearest(probs, negative_entropy, last.transition, fraction), labels, k)
        if bool((last.sizes < smallest).any()):
            break
        if _log_determinant(last) > _log_determinant(best):
            best = last
    return best


def _nearest(probs: Tensor, negative_entropy: Tensor, transition: Tensor, fraction: float) -> list[Tensor]:
    """The `fraction` of each Kullback-Leibler cluster around a row of T that is nearest to it."""
    k = transition.shape[0]
    likelihood, cluster = (probs @ ((1 - FLOOR) * transition + FLOOR / k).log().T).max(1)
    order = (negative_entropy - likelihood).argsort()
    members = [order[cluster[order] == c] for c in range(k)]
    return [rows[: round(fraction * len(rows))] for rows in members]


def _count(sets: list[Tensor], labels: Tensor, k: int) -> AnchorSets:
    counts = torch.stack([torch.bincount(labels[rows], minlength=k) for rows in sets])
    sizes = counts.sum(1)
    transition = counts / sizes.clamp_min(1)[:, None] + (sizes == 0).float().diag()
    return AnchorSets(transition, sizes)


def _log_determinant(sets: AnchorSets) -> float:
    return float(torch.linalg.slogdet(sets.transition.double()).logabsdet)
