"""Selection by rank: a growing share of the samples, balanced over the predicted classes or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pseudolabel_da.selection.checks import GROWING, Prior, check_prior, check_shares
from pseudolabel_da.selection.rule import Selection, most_confident


def rank_in_class(labels: Tensor, confidence: Tensor, classes: int) -> Tensor:
    """Rank (N,) of each sample by confidence among those of its label (N,), from 0; ties by position."""
    by_confidence = confidence.argsort(descending=True, stable=True)
    order = by_confidence[labels[by_confidence].argsort(stable=True)]
    sizes = torch.bincount(labels, minlength=classes)
    starts = sizes.cumsum(0) - sizes
    place = torch.arange(labels.numel(), device=labels.device)
    rank = torch.empty_like(place)
    rank[order] = place - starts[labels[order]]
    return rank


def select_top(probs: Tensor, quota: Tensor) -> Selection:
    """Select the `quota[k]` most confident samples of each predicted class k (fewer where the class has fewer).

    Args:
        probs: (N, K) probabilities.
        quota: (K,) integers.

    Returns:
        The selection; its threshold (K,) is the lowest confidence taken of each class, infinity where none is.

    Raises:
        ValueError: A shape is wrong.
    """
    labels, confidence = most_confident(probs)
    classes = probs.shape[-1]
    if quota.shape != (classes,):
        raise ValueError(f"quota must have shape ({classes},), got {tuple(quota.shape)}")
    quota = quota.to(labels.device)
    mask = (rank_in_class(labels, confidence, classes) < quota[labels]) & confidence.isfinite()
    lowest = torch.full((classes,), torch.inf, dtype=probs.dtype, device=probs.device)
    lowest = lowest.scatter_reduce(0, labels, confidence.masked_fill(~mask, torch.inf), "amin")
    return Selection(mask, labels, confidence, lowest, by_rank=True)


def balanced_quota(share: float, total: int, prior: Tensor) -> Tensor:
    """Samples (K,) to take of each class so that `share` of `total` is spread as `prior` (K,), rounded down.

    At least one of every class that has a share: a small pool would give none of any.
    """
    # a hair is added before rounding down: 0.2 * 100 * 0.1 must give 2, not 1
    return (share * total * prior.double() + 1e-9).floor().long().clamp_min(1) * (prior > 0)


@dataclass(frozen=True)
class ClassBalancedShare:
    """A share of the samples that grows by period, the most confident of every predicted class.

    There is no threshold, so label smoothing sets no ceiling to it, and no class can take over.

    Attributes:
        shares: Share of all samples to hold after each period; the last one stays.
        prior: How that share is spread over classes. None: evenly. A sequence of K shares: as it says.
            `predicted`: the same fraction of every predicted class, for when nothing is known of the classes (CBST).
            `estimate`: as the class shares that the context has, see `cautious_shares`; evenly without any.
    """

    shares: Sequence[float] = GROWING
    prior: Prior = None

    def __post_init__(self) -> None:
        check_shares(self.shares)
        check_prior(self.prior)

    def select(
        self,
        probs: Tensor,
        *,
        period: int = 0,
        taken: Tensor | None = None,
        shares: Tensor | None = None,
        **context: Any,
    ) -> Selection:
        """The selection among (N, K) in a period; `taken` (K,) counts against the share, `shares` (K,) are estimated.

        Raises:
            ValueError: The prior is not of K shares.
        """
        labels, confidence = most_confident(probs)
        classes = probs.shape[-1]
        taken = torch.zeros(classes, dtype=torch.long, device=labels.device) if taken is None else taken
        counts = torch.bincount(labels[confidence.isfinite()], minlength=classes) + taken
        share = self.shares[min(period, len(self.shares) - 1)]
        if self.prior == "predicted":
            quota = balanced_quota(share, 1, counts)
        else:
            quota = balanced_quota(share, probs.shape[-2] + int(taken.sum()), self._prior(classes, shares)).to(
                labels.device
            )
        return select_top(probs, (quota - taken).clamp_min(0))

    def _prior(self, classes: int, estimated: Tensor | None) -> Tensor:
        if self.prior == "estimate" and estimated is not None:
            return estimated.cpu().double()
        if self.prior is None or isinstance(self.prior, str):
            return torch.full((classes,), 1 / classes, dtype=torch.float64)
        prior = torch.as_tensor(self.prior, dtype=torch.float64)
        if prior.shape != (classes,):
            raise ValueError(f"prior must have {classes} shares, one a class, got {prior.numel()}")
        return prior / prior.sum()


@dataclass(frozen=True)
class TopShare:
    """A share of the samples that grows by period, the most confident of all: the control without balance.

    It is here to be compared with: with ordinary batch norm it lets one class take over.

    Attributes:
        shares: Share of all samples to hold after each period; the last one stays.
    """

    shares: Sequence[float] = GROWING

    def __post_init__(self) -> None:
        check_shares(self.shares)

    def select(self, probs: Tensor, *, period: int = 0, taken: Tensor | None = None, **context: Any) -> Selection:
        """The selection among (N, K) in a period; `taken` (K,) counts against the share."""
        before = 0 if taken is None else int(taken.sum())
        share = self.shares[min(period, len(self.shares) - 1)]
        return select_most_confident(probs, max(int(share * (probs.shape[-2] + before) + 1e-9), 1) - before)


def select_most_confident(probs: Tensor, count: int) -> Selection:
    """Select the `count` most confident of samples (N, K), or all that are numbers; ties by position."""
    labels, confidence = most_confident(probs)
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[confidence.argsort(descending=True, stable=True)[: max(count, 0)]] = True
    mask &= confidence.isfinite()
    lowest = torch.where(mask, confidence, torch.inf)
    least = lowest.amin() if lowest.numel() else lowest.new_tensor(torch.inf)
    return Selection(mask, labels, confidence, least, by_rank=True)
