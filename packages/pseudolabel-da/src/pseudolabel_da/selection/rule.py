"""Which samples receive a pseudo-label: the selection that every rule returns, and rules by one threshold.

A rule is a pure function of the probabilities; the classes below fix its parameters and share one signature:
`select(probs, accuracy=..., period=...)`. A rule of your own needs that method only, and takes the arguments it does
not use as `**context`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pseudolabel_da.selection.checks import check_rho, check_threshold
from pseudolabel_da.selection.thresholds import adaptive_threshold


class Selection(NamedTuple):
    """The outcome of a rule over N samples.

    Attributes:
        mask: (N,) bool, the samples that receive a label.
        labels: (N,) int64, the most probable class of every sample (0 where the probabilities are not numbers).
        confidence: (N,) the probability of that class; minus infinity where it is not a number.
        threshold: The confidence asked for, () or (K,); for rules by rank, the lowest one taken of each class.
        by_rank: Whether the threshold is such an outcome, and nothing that samples had to reach.
    """

    mask: Tensor
    labels: Tensor
    confidence: Tensor
    threshold: Tensor
    by_rank: bool = False


class Selector(Protocol):
    """A rule of selection."""

    def select(self, probs: Tensor, **context: Any) -> Selection:
        """Select among samples with probabilities (N, K).

        The context holds `accuracy` (on source validation data, None if unknown), `period` (from 0), `ceiling` (of
        confidence, from label smoothing), `taken` ((K,) counts already selected, None when the set is rebuilt),
        `weight` ((N,) domain weights, or None) and `shares` ((K,) estimated class shares of the target, or None).
        """
        ...


def most_confident(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Label (..., N) and confidence (..., N) of probabilities (..., N, K); rows with a NaN are (0, -inf).

    Raises:
        ValueError: There are fewer than two classes.
    """
    check_probs(probs)
    confidence, labels = probs.max(-1)
    valid = confidence.isfinite()  # max carries any NaN of the row on
    return labels * valid, confidence.masked_fill(~valid, -torch.inf)


def check_probs(probs: Tensor) -> None:
    """Raise ValueError unless probs is floating (..., N, K) with at least two classes."""
    if probs.ndim < 2 or not probs.is_floating_point():
        raise ValueError(f"probs must be floating and (N, K), got {probs.dtype} of shape {tuple(probs.shape)}")
    if probs.shape[-1] < 2:
        raise ValueError(
            f"probs must have at least 2 classes, got shape {tuple(probs.shape)}: "
            "for a model with one logit, give logits_fn=pseudolabel_da.binary_logits"
        )


def select_above(probs: Tensor, threshold: float | Tensor) -> Selection:
    """Select samples whose confidence is strictly above a threshold (Algorithm 1, line 9).

    Args:
        probs: (N, K) probabilities.
        threshold: A number, () or (K,): one for all or one for each predicted class. Compared in the type of probs.

    Raises:
        ValueError: A shape is wrong.
    """
    labels, confidence = most_confident(probs)
    threshold = torch.as_tensor(threshold, dtype=probs.dtype, device=probs.device)
    if threshold.shape not in ((), probs.shape[-1:]):
        raise ValueError(f"threshold must be () or ({probs.shape[-1]},), got {tuple(threshold.shape)}")
    wanted = threshold[labels] if threshold.ndim else threshold
    return Selection(confidence > wanted, labels, confidence, threshold)


@dataclass(frozen=True)
class FixedThreshold:
    """Samples more confident than a fixed number.

    Attributes:
        threshold: In [0, 1].
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def select(self, probs: Tensor, **context: Any) -> Selection:
        """The selection among (N, K); the context is not used."""
        return select_above(probs, self.threshold)


@dataclass(frozen=True)
class AdaptiveThreshold:
    """The paper's rule: samples more confident than `adaptive_threshold(accuracy, rho)`.

    Attributes:
        rho: Steepness of the threshold.
        ceiling_aware: Multiply the threshold by the ceiling that label smoothing puts on confidence
            (`confidence_ceiling`), so that it can be reached. Not in the paper; off by default. It pays once the start
            is good (a few labelled target samples): from a bad start it lets more wrong labels in.
    """

    rho: float = 3.0
    ceiling_aware: bool = False

    def __post_init__(self) -> None:
        check_rho(self.rho)

    def select(
        self, probs: Tensor, *, accuracy: float | Tensor | None = None, ceiling: float = 1.0, **context: Any
    ) -> Selection:
        """The selection among (N, K), given the accuracy on source validation data and the ceiling.

        Raises:
            ValueError: There is no accuracy.
        """
        threshold = adaptive_threshold(known(accuracy), self.rho)
        return select_above(probs, threshold * ceiling if self.ceiling_aware else threshold)


def known(accuracy: float | Tensor | None) -> float | Tensor:
    """The accuracy, or ValueError where there is none."""
    if accuracy is None:
        raise ValueError(
            "this selector needs the accuracy on source validation data: "
            "give a source_val that is not empty, accuracy=..., or take FixedThreshold"
        )
    return accuracy
