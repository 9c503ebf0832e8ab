"""How far an estimate of noise can be believed: what other estimators say, and what typical samples show."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.estimation.anchors import anchor_points
from fdiv_noisy.estimation.confident import confident_joint
from fdiv_noisy.estimation.dual import dual_t
from fdiv_noisy.estimation.structure import label_floors, wrong_share

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def other_rates(probs: Tensor, labels: Tensor) -> dict[str, float]:
    """The share of wrong labels by estimators that fail in other ways than anchor sets do.

    Anchor points rest on K samples, confident joint and dual-T count overlap of classes as noise, label floors see
    noise that gives a label to all other classes alike, and nothing else.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels.
        labels: (N,) int64 noisy labels.
    """
    k = probs.shape[1]
    floors = label_floors(probs, labels)
    even = torch.eye(k, device=floors.device) * (1 - floors.sum()).clamp_min(0) + floors
    matrices = {
        "anchor points": anchor_points(probs),
        "confident joint": confident_joint(probs, labels).transition,
        "dual-T": dual_t(probs, labels),
        "label floors": even / even.sum(1, keepdim=True),
    }
    return {name: wrong_share(matrix, labels) for name, matrix in matrices.items()}


def wrong_by_typicality(probs: Tensor, labels: Tensor) -> list[float]:
    """The share of labels that differ from the class, among the most typical `SHARES` of each class's samples.

    Noise makes it high from the start; where it starts at nothing and rises, classes overlap.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels.
        labels: (N,) int64 noisy labels.
    """
    guess = probs.argmax(1)
    sure = probs.gather(1, guess[:, None])[:, 0]
    wrong = (guess != labels).double()
    rank = torch.empty_like(sure)
    for c in guess.unique():
        rows = (guess == c).nonzero()[:, 0]
        rank[rows[sure[rows].argsort(descending=True)]] = torch.arange(len(rows)).to(sure) / len(rows)
    return [float(wrong[rank < share].mean()) for share in SHARES]
