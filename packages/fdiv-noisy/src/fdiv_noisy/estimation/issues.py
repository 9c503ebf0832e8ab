"""Which labels are wrong, and what they should be."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities
from fdiv_noisy.estimation.report import NoiseReport
from fdiv_noisy.estimation.structure import holds_overlap, select_structure, wrong_share
from fdiv_noisy.transition import Transition, Uniform, as_matrix

STEPS = 100
WORK = 4e9  # multiplications that the expectation maximisation may take in each of its two products
CHUNK = 4096
TINY = 1e-12
TIES = 1e-3  # share of the self-confidence in the probability: it orders what is equal else
EVEN = ("clean", "undecided", "uniform")  # noise under which a label is the likelier wrong, the less probable it is


class LabelIssues(NamedTuple):
    """What `label_issues` finds.

    Attributes:
        wrong: (N,) float32, the probability that each label is wrong.
        suggested: (N,) int64, the likeliest true class of each sample.
        posterior: (N, K) float32, the probability of each true class given the image alone.
    """

    wrong: Tensor
    suggested: Tensor
    posterior: Tensor

    def order(self) -> Tensor:
        """(N,) int64, the samples by falling probability that their label is wrong."""
        return self.wrong.argsort(descending=True, stable=True)

    def suspects(self, threshold: float = 0.5) -> Tensor:
        """(N,) booleans: labels that are wrong with more than this probability.

        Args:
            threshold: In [0, 1].

        Raises:
            ValueError: It is not.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        return self.wrong > threshold


def label_issues(probs: Tensor, labels: Tensor, transition: Transition | None = None) -> LabelIssues:
    r"""The probability of each label to be wrong, $1 - P(Y = \tilde y \mid x, \tilde y)$.

    With the clean posterior $c(x)$, which explains the noisy one as $T^\top c$ (found by expectation maximisation), the
    label is right with probability $c_{\tilde y} T_{\tilde y\tilde y} / (T^\top c)_{\tilde y}$. Where flips have a
    structure this finds labels that the network itself finds likely, such as those of a pair that flips more often than
    not. Without one the order is that of the noisy posterior of the label (self-confidence), and so it is where a
    matrix without structure claims more wrong labels than typical samples show: it then holds overlap of classes.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels (`fdiv_noisy.estimation.cross_fit_probabilities`).
        labels: (N,) int64 noisy labels.
        transition: The noise; by default that which `fdiv_noisy.estimation.select_structure` finds.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    check_probabilities(probs, labels)
    even = isinstance(transition, Uniform)
    if transition is None:
        report = select_structure(probs, labels)
        transition, even = report.transition, report.structure in EVEN or _may_be_overlap(report, probs, labels)
    matrix = as_matrix(transition).to(probs.device, torch.float32)
    if len(matrix) != probs.shape[1]:
        raise ValueError(f"the transition has {len(matrix)} classes, probs have {probs.shape[1]}")
    probs = probs.float()
    clean = clean_posterior(probs, matrix)
    joint = clean * matrix.T[labels]  # (N, K): true class, with the label that was seen
    given = joint / joint.sum(1, keepdim=True).clamp_min(TINY)
    own = probs.gather(1, labels[:, None])[:, 0]
    wrong = 1 - given.gather(1, labels[:, None])[:, 0]
    suggested = given.argmax(1)
    if even:
        wrong, suggested = _in_order_of(1 - own, wrong), probs.argmax(1)
    return LabelIssues(wrong + TIES * (1 - own - wrong), suggested, clean)


def _may_be_overlap(report: NoiseReport, probs: Tensor, labels: Tensor) -> bool:
    """Whether the matrix of a report says no more than that classes look alike."""
    if probs.shape[1] == 2:
        return bool((report.matrix().diag() > 0.5).all())
    return report.structure == "general" and holds_overlap(wrong_share(report.matrix(), labels), probs, labels)


def clean_posterior(probs: Tensor, matrix: Tensor) -> Tensor:
    r"""Posteriors c (N, K) of the true classes for which $T^\top c$ comes nearest to `probs`.

    By expectation maximisation from equal shares, whose every step keeps c a distribution.

    Args:
        probs: (N, K) posteriors of the noisy labels.
        matrix: (K, K) row-stochastic T.
    """
    n, k = probs.shape
    steps = max(10, min(STEPS, int(WORK / (n * k * k))))
    found = []
    for part in probs.split(CHUNK):
        clean = torch.full_like(part, 1 / k)
        for _ in range(steps):
            clean = clean * ((part / (clean @ matrix).clamp_min(TINY)) @ matrix.T)
            clean = clean / clean.sum(1, keepdim=True)
        found.append(clean)
    return torch.cat(found)


def _in_order_of(key: Tensor, values: Tensor) -> Tensor:
    """`values` (N,) handed out anew, the larger to those with the larger `key`."""
    handed = torch.empty_like(values)
    handed[key.argsort()] = values.sort().values
    return handed
