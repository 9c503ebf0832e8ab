"""Dual-T: the transition matrix in two factors, one through a network's guess and one by counting."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.estimation.anchors import anchor_points
from fdiv_noisy.estimation.checks import check_probabilities


def dual_t(probs: Tensor, labels: Tensor, *, outliers: float = 0.03) -> Tensor:
    r"""Yao et al. 2020, section 3.2: $T_{ij} \approx \sum_l P(Y' = l \mid Y = i) P(\tilde Y = j \mid Y' = l)$.

    Y' is the network's own guess. The first factor comes from anchor points, the second from counts of noisy labels
    among the samples guessed l.

    Args:
        probs: (N, K) posteriors of the noisy labels.
        labels: (N,) int64 noisy labels.
        outliers: See `anchor_points`.

    Returns:
        (K, K), rows sum to 1.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    check_probabilities(probs, labels)
    k = probs.shape[1]
    guess = probs.argmax(1)
    counts = torch.bincount(guess * k + labels, minlength=k * k).view(k, k).to(probs.dtype)
    never = counts.sum(1) == 0
    counts[never, never] = 1.0  # a class that is never guessed is taken as right
    return anchor_points(probs, outliers=outliers) @ (counts / counts.sum(1, keepdim=True))
