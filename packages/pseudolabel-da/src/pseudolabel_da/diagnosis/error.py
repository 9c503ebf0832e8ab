"""How many pseudo-labels are wrong, without a true label: signals against them, their combination, an interval."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Opening(NamedTuple):
    """What the network said when the first labels were asked of it, before any of its own answers had trained it.

    Attributes:
        target: (N, K) logits of the target.
        source: (M, K) of source validation data, or None without any.
    """

    target: Tensor
    source: Tensor | None


class Opinion(NamedTuple):
    """What a second network said that was adapted from another seed.

    Attributes:
        classes: In each of its periods, (N,) most probable classes of the target.
        source: (M,) those of source validation data in its first period, or None without any.
    """

    classes: Sequence[Tensor]
    source: Tensor | None

    def at(self, period: int) -> Tensor:
        """(N,) classes of the target in a period, or in its last one."""
        return self.classes[min(period, len(self.classes) - 1)]


class Doubts(NamedTuple):
    """What a period knows that may speak against labels of its N samples.

    Attributes:
        logits: (N, K) of the target.
        jittered: (N,) most probable classes of slightly changed inputs, or None where inputs are no images.
        source_labels: (M,) labels of source validation data, or None without any.
        opening: What the network said at first, or None where that is not known.
        second: What another network says, or None without one.
        period: Number of this period.
    """

    logits: Tensor
    jittered: Tensor | None = None
    source_labels: Tensor | None = None
    opening: Opening | None = None
    second: Opinion | None = None
    period: int = 0


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

    Of two networks adapted from other seeds it speaks for the error; see `error_by_agreement`.

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


def error_by_agreement(disagreement: float, source_disagreement: float, source_error: float) -> float:
    """The error of two networks on new data by how often they disagree there (agreement on the line, Baek et al. 2022).

    Accuracy and agreement are taken to move alike, on the probit scale, from the source, where both are known.

    Args:
        disagreement: Of the two on new data, in [0, 1].
        source_disagreement: Of the two on labelled data.
        source_error: Of the first there.
    """
    normal = NormalDist()
    agreed, known, right = (
        normal.inv_cdf(min(max(1 - share, 0.01), 0.99)) for share in (disagreement, source_disagreement, source_error)
    )
    return 1 - normal.cdf(agreed + right - known)


def signals_against(labels: Tensor, doubts: Doubts) -> dict[str, float]:
    """What speaks against a set of labels (N,), -1 without one; each is a share, larger where more are wrong.

    `jittered`: labels that the model itself does not give to slightly changed images. `start`: 1 less the mean
    probability that the network gave them at first. `reverse`: source validation samples that the classes of the
    labelled target, by their means in what the network said at first, put in a wrong class (reverse validation without
    a second training). `two`: labels that a second network does not give. `agreement`: the error that these speak for.
    """
    held = (labels >= 0) & doubts.logits.isfinite().all(1)
    if not bool(held.any()):
        return {}
    found, own = {}, labels[held]
    if doubts.jittered is not None:
        found["jittered"] = disagreement(doubts.jittered[held], own)
    if doubts.opening is not None:
        found |= _by_opening(held, own, doubts.opening, doubts.source_labels)
    if doubts.second is not None:
        found |= _by_second(held, own, doubts, doubts.second)
    return found


def _by_opening(held: Tensor, own: Tensor, opening: Opening, known: Tensor | None) -> dict[str, float]:
    points = torch.nan_to_num(opening.target[held].float().log_softmax(1), neginf=-1e4)
    found = {"start": 1 - float(points.exp().gather(1, own[:, None]).double().mean())}
    if opening.source is not None and known is not None:
        source = torch.nan_to_num(opening.source.float().log_softmax(1), neginf=-1e4)
        back = torch.cdist(source, class_means(points, own, points.shape[1])).argmin(1)
        found["reverse"] = disagreement(back, known)
    return found


def _by_second(held: Tensor, own: Tensor, doubts: Doubts, second: Opinion) -> dict[str, float]:
    found = {"two": disagreement(second.at(doubts.period).to(own)[held], own)}
    source = None if doubts.opening is None else doubts.opening.source
    if source is not None and second.source is not None and doubts.source_labels is not None:
        answers = source.argmax(1)
        apart = disagreement(answers, second.source.to(answers))
        found["agreement"] = error_by_agreement(found["two"], apart, disagreement(answers, doubts.source_labels))
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


# slope and offset of the line that takes each signal to a share of wrong labels, fitted over two seeds of 15 shifts
LINES = {"reverse": (1.2, 0.0), "start": (1.3, -0.14), "jittered": (1.6, -0.09), "agreement": (1.1, 0.0)}
STRETCH = (1.35, -0.17)  # of their mean, which is drawn to the middle
MARGIN = 0.25


def estimate_wrong(signals: dict[str, float]) -> ErrorEstimate | None:
    """The share of wrong labels in a set, by the signals against it; None without those of the source.

    The mean of a line through each signal, and an interval that nine of ten sets of the tuning runs lay in; how it does
    on others is measured in the benchmark `verdicts`.
    """
    if "reverse" not in signals:
        return None
    given = [min(max(a * signals[name] + b, 0.0), 1.0) for name, (a, b) in LINES.items() if name in signals]
    share = min(max(STRETCH[0] * sum(given) / len(given) + STRETCH[1], 0.0), 1.0)
    return ErrorEstimate(share, max(share - MARGIN, 0.0), min(share + MARGIN, 1.0))


def said_wrong(record: Any) -> str:
    """The estimate of a record in words."""
    if record.wrong_estimate is None:
        return "how many labels are wrong is not known"
    low, high = record.wrong_interval
    return f"about {record.wrong_estimate:.0%} of the labels are estimated to be wrong ({low:.0%} to {high:.0%})"
