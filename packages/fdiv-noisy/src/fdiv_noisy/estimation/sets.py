r"""The transition matrix from the labels of typical samples of each class.

For each class a set of samples that almost surely belong to it is found from their out-of-fold posteriors; the noisy
labels of the set, which the posteriors have not seen, are draws from the class's row of T. A set that mixes classes
gives $\hat T = A T$ with a row-stochastic A, so $|\det \hat T| \le |\det T|$: of several candidate families of sets
the one with the largest determinant is the purest, which noisy labels alone can tell. Sampling error raises some
determinants by chance, so that families compete by a lower bound of theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities

FRACTIONS = (0.05, 0.1, 0.2, 0.4)
FEWEST_IN_SET = 200  # a smaller fraction must leave this many labels in an average set
SMALLEST_SHARE = 0.1  # a set that shrinks to less than this share of its first size has lost its class
FLOOR = 0.02  # mass spread over a row of T before its logarithm is taken: posteriors are no exact rows of T
CAUTION = 6.0  # standard errors of the log-determinant that purity must be worth


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
        share, sizes = self._smoothed()
        return (share * (1 - share) / sizes).sqrt()

    def purity(self, caution: float = CAUTION) -> float:
        r"""A lower bound of $\log |\det T|$: its value less `caution` standard errors, -inf for a singular matrix.

        The variance is that of $\sum_i \delta_i^T (T^{-1})_{\cdot i}$ for multinomial errors $\delta_i$ of row i.
        """
        t = self.transition.double()
        inverse, info = torch.linalg.inv_ex(t)
        if int(info) != 0 or not bool(inverse.isfinite().all()):
            return -torch.inf
        share, sizes = self._smoothed()
        share, value = share.double(), inverse.T
        variance = ((share * value.square()).sum(1) - (share * value).sum(1).square()) / sizes[:, 0]
        spread = variance.clamp_min(0).sum().sqrt()
        return float(torch.linalg.slogdet(t).logabsdet - caution * spread)

    def _smoothed(self) -> tuple[Tensor, Tensor]:
        sizes = self.sizes[:, None].to(self.transition.dtype)
        share = (self.transition * sizes + 1 / self.transition.shape[0]) / (sizes + 1)
        return share, sizes.clamp_min(1)


def anchor_sets(probs: Tensor, labels: Tensor, *, fraction: float | None = None, steps: int = 5) -> AnchorSets:
    """Estimate T by counting the noisy labels of each class's most typical samples.

    The first sets are the samples with the largest probability of the class, as in anchor points (Patrini et al.
    2017), but many, and with their own labels instead of their probabilities: sampling error shrinks, calibration
    does not matter. Where two classes share a label about evenly (pair-flip noise of 45 %) these sets mix them, so
    that each step then takes the samples whose posterior is nearest, in Kullback-Leibler divergence, to a row of the
    last T. The purest sets are kept.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels (`cross_fit_probabilities`).
        labels: (N,) int64 noisy labels.
        fraction: Share of a class's samples that its set holds, in (0, 1]. Smaller sets are purer where classes
            overlap, larger ones have less sampling error; by default the best of 0.05, 0.1, 0.2 and 0.4.
        steps: Most refinements of the first sets.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    check_probabilities(probs, labels)
    if (fraction is not None and not 0 < fraction <= 1) or steps < 0:
        raise ValueError(f"fraction must be in (0, 1] and steps >= 0, got {fraction} and {steps}")
    n, k = probs.shape
    fractions = [f for f in FRACTIONS if f * n >= FEWEST_IN_SET * k] or FRACTIONS[-1:]
    families = (_purest(probs.float(), labels, f, steps) for f in (fractions if fraction is None else [fraction]))
    return max(families, key=AnchorSets.purity)


def _purest(probs: Tensor, labels: Tensor, fraction: float, steps: int) -> AnchorSets:
    k = probs.shape[1]
    sizes = (fraction * torch.bincount(labels, minlength=k)).ceil().long()
    sets = [probs[:, c].topk(int(sizes[c])).indices for c in range(k)]
    families = [_count(sets, labels, k)]
    smallest = (SMALLEST_SHARE * families[0].sizes).ceil()
    negative_entropy = -torch.special.entr(probs).sum(1)
    for _ in range(steps):
        sets = _nearest(probs, negative_entropy, families[-1].transition, fraction)
        refined = _count(sets, labels, k)
        if bool((refined.sizes < smallest).any()):
            break
        families.append(refined)
    return max(families, key=lambda family: family.purity(caution=0.0))  # of one size, and so of like error


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
