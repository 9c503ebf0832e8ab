"""Anchor points: the transition matrix from the most probable sample of each class."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities


def anchor_points(probs: Tensor, *, outliers: float = 0.03) -> Tensor:
    """The transition matrix whose row i is the posterior of the sample with the largest probability of class i.

    Patrini et al. 2017, equations 12 and 13. It rests on K samples, each of them the most extreme of its kind;
    `anchor_sets` rests on more and is several times as exact.

    Args:
        probs: (N, K) posteriors of the noisy labels.
        outliers: Share of the samples with the largest probability of a class that are passed over, in [0, 1); 0 for
            none. The published 0.03 suits ten classes; with more than 33 it passes over whole classes, so that no
            more than 0.3 of a class's average share 1 / K is ever passed over.

    Returns:
        (K, K), rows sum to 1.

    Raises:
        ValueError: `probs` are no probabilities, or `outliers` is out of range.
    """
    check_probabilities(probs)
    if not 0 <= outliers < 1:
        raise ValueError(f"outliers must be in [0, 1), got {outliers}")
    n, k = probs.shape
    rank = min(int(outliers * n), n - 1) if k <= 33 else min(int(outliers * n), int(0.3 * n / k))
    rows = probs.topk(rank + 1, dim=0).indices[-1]
    return probs[rows] / probs[rows].sum(1, keepdim=True)
