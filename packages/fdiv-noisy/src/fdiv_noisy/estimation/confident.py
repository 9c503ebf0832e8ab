"""Confident learning: count samples whose probability of a class is above what is usual for that class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities


class ConfidentJoint(NamedTuple):
    r"""What `confident_joint` finds.

    Attributes:
        transition: (K, K) $P(\tilde Y = j \mid Y = i)$, rows sum to 1.
        joint: (K, K) $P(Y = i, \tilde Y = j)$, sums to 1. cleanlab's is the transpose.
    """

    transition: Tensor
    joint: Tensor


def confident_joint(probs: Tensor, labels: Tensor) -> ConfidentJoint:
    r"""Northcutt et al. 2021, section 3.1, equations 1 to 3.

    Class i's threshold is the mean probability of i among the samples labelled i. A sample counts for the true class
    of largest probability among those whose threshold it reaches, and for none if it reaches none. Each noisy class
    is then scaled to its number of labels.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels.
        labels: (N,) int64 noisy labels.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    check_probabilities(probs, labels)
    n, k = probs.shape
    sizes = torch.bincount(labels, minlength=k)
    own = probs.gather(1, labels[:, None])[:, 0].double()
    thresholds = torch.zeros(k, dtype=own.dtype, device=own.device).index_add(0, labels, own) / sizes.clamp_min(1)
    thresholds[sizes == 0] = torch.inf  # a class that is never given is never confident
    reached = probs >= thresholds * (1 - 1e-6)  # rounding must not lose a class whose probabilities are all equal
    counted = reached.any(1)
    true = torch.where(reached, probs, -1.0).argmax(1)
    cells = (labels * k + true)[counted]
    by_label = torch.bincount(cells, minlength=k * k).view(k, k).double()
    empty = by_label.sum(1) == 0
    by_label[empty, empty] = 1.0  # a label without a confident sample is taken as right
    by_label *= (sizes / by_label.sum(1))[:, None]
    joint = by_label.T / n
    prior = joint.sum(1, keepdim=True)
    transition = joint / prior.clamp_min(torch.finfo(joint.dtype).tiny) + (prior[:, 0] == 0).double().diag()
    return ConfidentJoint(transition.to(probs.dtype), joint.to(probs.dtype))
