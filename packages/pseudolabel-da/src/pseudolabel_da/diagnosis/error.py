"""How many pseudo-labels are wrong, without a true label: two signals, their combination, and an interval."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Doubts(NamedTuple):
    """What a period knows that may speak against labels of its N samples.

    Attributes:
        logits: (N, K) of the target.
        jittered: (N,) most probable classes of slightly changed inputs, or None where inputs are no images.
        source_logits: (M, K) of source validation data, or None without any.
        source_labels: (M,) their labels, or None.
    """

    logits: Tensor
    jittered: Tensor | None = None
    source_logits: Tensor | None = None
    source_labels: Tensor | None = None


def atc_threshold(probs: Tensor, labels: Tensor) -> Tensor:
    """The confidence below which as many labelled samples lie as are wrong (Garg et al. 2022, eq. 1).

    The share of unlabelled samples below it, their average thresholded confidence, estimates their error.

    Args:
        probs: (N, K) probabilities of labelled samples.
        labels: (N,) their classes.

    Returns:
        A threshold, 0-dim, of the type of probs; 0 where every sample is right.

    Raises:
        ValueError: There are no samples, or the shapes do not match.
    """
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not labels.numel():
        raise ValueError(f"expected (N, K) and (N,) with N > 0, got {tuple(probs.shape)} and {tuple(labels.shape)}")
    confidence, predicted = probs.max(1)
    wrong = int((predicted != labels).sum())
    ordered = confidence.sort().values
    if wrong == len(ordered):
        return ordered[-1] + torch.finfo(probs.dtype).eps
    return ordered[wrong] if wrong else ordered.new_zeros(())


def disagreement(first: Tensor, second: Tensor) -> float:
    """Share of samples that two models, or one model on two views, put in different classes.

    Of two networks adapted from other seeds it estimates the error best of all signals measured, at twice the cost.

    Args:
        first: (N, K) probabilities or logits, or (N,) classes.
        second: The same.

    Raises:
        ValueError: They are not of the same samples, or of none.
    """
    a, b = (x.argmax(1) if x.ndim == 2 else x for x in (first, second))
    if a.shape != b.shape or not a.numel():
        raise ValueError(f"expected the same samples, got {tuple(first.shape)} and {tuple(second.shape)}")
    return float((a != b).double().mean())


def class_means(points: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Means (K, D) of points (N, D) of each class; far away for a class without one."""
    member = torch.nn.functional.one_hot(labels, classes).to(points)
    counts = member.sum(0)
    means = member.T @ points / counts.clamp_min(1)[:, None]
    return means.masked_fill((counts == 0)[:, None], 1e6)


def signals_against(labels: Tensor, doubts: Doubts) -> dict[str, float]:
    """What speaks against a set of labels (N,), -1 without one; each is a share, larger where more are wrong.

    `jittered`: labels that the model itself does not give to slightly changed images. `forward`: labels that are not
    those of the nearest class of the source, by the mean log-probabilities of its classes. `reverse`: source validation
    samples that the classes of the labelled target, by their means, put in a wrong class (reverse validation without a
    second training). `source`: source validation samples that the model gets wrong.
    """
    held = (labels >= 0) & doubts.logits.isfinite().all(1)
    if not bool(held.any()):
        return {}
    found, own, classes = {}, labels[held], doubts.logits.shape[1]
    if doubts.jittered is not None:
        found["jittered"] = disagreement(doubts.jittered[held], own)
    if doubts.source_logits is not None and doubts.source_labels is not None:
        points, known = doubts.logits[held].log_softmax(1), doubts.source_labels
        source = torch.nan_to_num(doubts.source_logits.log_softmax(1))
        nearest = torch.cdist(points, class_means(source, known, classes)).argmin(1)
        back = torch.cdist(source, class_means(points, own, classes)).argmin(1)
        found["forward"], found["reverse"] = disagreement(nearest, own), disagreement(back, known)
        found["source"] = disagreement(source, known)
    return found


class ErrorEstimate(NamedTuple):
    """An estimate of a share of wrong labels.

    Attributes:
        share: The estimate, in [0, 1].
        low: Lower end of its interval.
        high: Upper end.
    """

    share: float
    low: float
    high: float


SLOPE, OFFSET, MARGIN = 1.65, -0.13, 0.28  # of the mean of the signals; from the benchmark `verdicts`


def estimate_wrong(signals: dict[str, float]) -> ErrorEstimate | None:
    """The share of wrong labels in a set, by the signals against it; None without those of the source.

    A line through the mean of the signals, and an interval that nine of ten sets of the benchmark `verdicts` lie in.
    """
    if "forward" not in signals:
        return None
    share = min(max(SLOPE * sum(signals.values()) / len(signals) + OFFSET, 0.0), 1.0)
    return ErrorEstimate(share, max(share - MARGIN, 0.0), min(share + MARGIN, 1.0))


def said_wrong(record: Any) -> str:
    """The estimate of a record in words."""
    if record.wrong_estimate is None:
        return "how many labels are wrong is not known"
    low, high = record.wrong_interval
    return f"about {record.wrong_estimate:.0%} of the labels are estimated to be wrong ({low:.0%} to {high:.0%})"
