"""What a period did to the pseudo-labelled set, measured without labels, and a verdict on it.

The verdicts are the three failures of the paper's section 3.4; true labels only ever reach `check_truth`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.diagnosis.limits import CollapseLimits


class Verdict(enum.StrEnum):
    """The state of the pseudo-labelled set."""

    HEALTHY = "healthy"
    """No failure is seen."""
    LIBERAL = "liberal"
    """Much of the pool has a label, and ever more of them are contradicted by the model itself."""
    FEW_CLASSES = "few_classes"
    """Few classes hold most labels, and will hold more."""
    WRONG_LABELS = "wrong_labels"
    """Many labels are estimated to be wrong, by signals that need no true one."""
    HYPER_CONSERVATIVE = "hyper_conservative"
    """Next to nothing is selected, or a threshold is asked for above what the model can reach."""


class ClassSpread(NamedTuple):
    """How K counts are spread.

    Attributes:
        entropy: Entropy over log K, in [0, 1]; 0 for no sample.
        effective_classes: e to the entropy, from 1 to K; 0 for no sample.
        max_share: Share of the largest class; 0 for no sample.
        empty_classes: Classes without a sample.
    """

    entropy: float
    effective_classes: float
    max_share: float
    empty_classes: int


def class_spread(counts: Tensor) -> ClassSpread:
    """How `counts` (K,) are spread over the classes; K at least 2."""
    total = counts.sum()
    shares = counts.double() / total.clamp_min(1)
    entropy = -torch.xlogy(shares, shares).sum()
    empty = (counts == 0).sum()
    values = torch.stack([entropy, entropy.exp() * (total > 0), shares.max(), empty.double()]).tolist()
    size = torch.tensor(float(counts.numel())).log().item()
    return ClassSpread(values[0] / size, values[1], values[2], int(values[3]))


@dataclass
class PeriodRecord:
    """One period, as plain numbers.

    Attributes:
        epoch: The epoch it came in, from 0.
        period: Its number, from 0.
        pool: N, the target samples.
        candidates: Samples that could be selected.
        selected: Samples selected in this period; the whole set where it is rebuilt.
        total: Samples with a pseudo-label after it.
        share: total over N.
        source_accuracy: On source validation data, or None.
        threshold: The confidence asked for, or the lowest one taken by rank; a list of K where it differs by class
            (None for a class without one).
        ceiling: Of confidence, from the label smoothing that the model was last trained with.
        max_confidence: The largest among the candidates, or None.
        invalid: Candidates whose probabilities are not numbers.
        class_histogram: (K) pseudo-labels of each class after the period.
        entropy: Of that histogram, over log K.
        effective_classes: e to its entropy.
        max_share: Of the largest class in it.
        empty_classes: Classes without a pseudo-label.
        flip_rate: Share of the labels held before that the model now contradicts, or None without any.
        drift: KL divergence, in nats, of the mean prediction over the pool from that a period ago, or None.
        verdict: The state of the set.
        remedy: What was done about it: `relaxed`, `rebalanced` or nothing.
        wrong: Labels of this period's selection that are wrong, or None without true labels.
        wrong_total: Wrong labels in the whole set, likewise.
        class_precision: Share of right labels in each class (None for an empty class), likewise.
        by_rank: Whether samples were selected by rank, so that the threshold was not asked for.
        prior: (K) shares of the classes that the selector was told, which the spread is measured against; None stands
            for even classes.
        signals: What speaks against the labels of the set; see `pseudolabel_da.diagnosis.error.signals_against`.
        wrong_estimate: The share of wrong labels in the set that these speak for, or None without a signal.
        class_shares: (K) estimated shares of the classes in the target, see `estimate_class_shares`, or None.
        class_shares_low: (K) lower ends of their intervals.
        class_shares_high: (K) upper ends.
        wrong_interval: Its lower and upper end; nine sets in ten lay within in the benchmark `verdicts`.
    """

    epoch: int
    period: int
    pool: int
    candidates: int
    selected: int
    total: int
    share: float
    source_accuracy: float | None
    threshold: float | list[float | None] | None
    ceiling: float
    max_confidence: float | None
    invalid: int
    class_histogram: list[int]
    entropy: float
    effective_classes: float
    max_share: float
    empty_classes: int
    flip_rate: float | None
    drift: float | None
    verdict: Verdict = Verdict.HEALTHY
    remedy: str = ""
    wrong: int | None = None
    wrong_total: int | None = None
    class_precision: list[float | None] | None = field(default=None)
    by_rank: bool = False
    prior: list[float] | None = None
    signals: dict[str, float] = field(default_factory=dict)
    wrong_estimate: float | None = None
    wrong_interval: list[float] | None = None
    class_shares: list[float] | None = None
    class_shares_low: list[float] | None = None
    class_shares_high: list[float] | None = None

    def absent(self) -> list[int]:
        """Classes that the target seems to lack: even the upper end of their share is below a tenth of an even one."""
        if self.class_shares_high is None:
            return []
        return [k for k, high in enumerate(self.class_shares_high) if high < 0.1 / len(self.class_shares_high)]

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists alone: fit for JSON and for `torch.load(weights_only=True)`."""
        return asdict(self) | {"verdict": self.verdict.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PeriodRecord:
        """The record that `as_dict` gave."""
        record = cls(**values)
        record.verdict = Verdict(record.verdict)
        return record


def diagnose(
    record: PeriodRecord, previous: list[PeriodRecord] | None = None, limits: CollapseLimits | None = None
) -> Verdict:
    """The verdict on a record, given those before it.

    A set of fewer samples than classes is never called one of few classes: it cannot be spread over more. The spread is
    measured against the record's prior, even classes where it has none.
    """
    limits, previous = limits or CollapseLimits(), previous or []
    classes = len(record.class_histogram)
    flips, before = record.flip_rate, previous[-1].flip_rate if previous else None
    contradicted = flips is not None and flips >= limits.liberal_flips and (before is None or flips > before)
    if contradicted and record.share > limits.liberal_share:
        return Verdict.LIBERAL
    if record.total >= classes and _few_classes(record, limits):
        return Verdict.FEW_CLASSES
    if record.wrong_estimate is not None and record.wrong_estimate > limits.wrong_share:
        return Verdict.WRONG_LABELS
    return Verdict.HYPER_CONSERVATIVE if _too_conservative(record, previous, limits) else Verdict.HEALTHY


def _few_classes(record: PeriodRecord, limits: CollapseLimits) -> bool:
    """Whether a class holds much more than its share of the prior, or the set far fewer classes than the prior."""
    classes = len(record.class_histogram)
    if record.prior is None:
        crowded, expected = record.max_share > limits.largest_share + 0.5 / classes, float(classes)
    else:
        held = [count / record.total for count in record.class_histogram]
        crowded = any(own > limits.largest_share + 0.5 * due for own, due in zip(held, record.prior, strict=True))
        expected = math.exp(-sum(due * math.log(due) for due in record.prior if due > 0))
    return crowded or record.effective_classes < limits.effective_share * expected


def _too_conservative(record: PeriodRecord, previous: list[PeriodRecord], limits: CollapseLimits) -> bool:
    if record.total == record.pool:
        return False
    if not record.by_rank and isinstance(record.threshold, float) and record.threshold >= record.ceiling:
        return True  # only overshoot can be selected
    last = [*previous, record][-limits.tiny_periods :]
    tiny = [r.selected < limits.tiny_share * r.pool for r in last]
    return len(tiny) == limits.tiny_periods and all(tiny)


def marginal_drift(now: Tensor, before: Tensor) -> float | None:
    """KL divergence in nats of the mean prediction `now` (K,) from that `before`, None where there was none."""
    if float(before.sum()) == 0:
        return None
    floor = torch.finfo(torch.float32).tiny
    return float((torch.xlogy(now, now) - now * before.clamp_min(floor).log()).sum())


def check_truth(record: PeriodRecord, labels: Tensor, new: Tensor, truth: Tensor) -> None:
    """Write into `record` how many pseudo-labels are wrong.

    Args:
        record: To write to; nothing else learns of the truth.
        labels: (N,) pseudo-labels, -1 without one.
        new: (N,) bool, those of this period.
        truth: (N,) true labels.
    """
    held = labels >= 0
    wrong = held & (labels != truth.to(labels.device))
    classes = len(record.class_histogram)
    right = torch.bincount(labels[held & ~wrong], minlength=classes).tolist()
    record.wrong, record.wrong_total = torch.stack([(wrong & new).sum(), wrong.sum()]).tolist()
    record.class_precision = [r / n if n else None for r, n in zip(right, record.class_histogram, strict=True)]
