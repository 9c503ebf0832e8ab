"""One period: from probabilities over the pool to a selection, its record and the pool's next state."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.algorithm.pool import PseudoLabelPool, class_counts
from pseudolabel_da.algorithm.settings import Settings
from pseudolabel_da.diagnosis.alerts import CollapseWarning, StalledWarning
from pseudolabel_da.diagnosis.diagnostics import (
    PeriodRecord,
    Verdict,
    check_truth,
    class_spread,
    diagnose,
    marginal_drift,
)
from pseudolabel_da.diagnosis.error import Doubts, estimate_wrong, said_wrong, signals_against
from pseudolabel_da.diagnosis.shares import ClassShares
from pseudolabel_da.selection.flexible import FlexThreshold
from pseudolabel_da.selection.ican import ICANSelector
from pseudolabel_da.selection.rule import AdaptiveThreshold, FixedThreshold, Selection, Selector, most_confident
from pseudolabel_da.selection.shares import ClassBalancedShare, select_most_confident, select_top


class PeriodContext(NamedTuple):
    """What a period knows besides the probabilities.

    Attributes:
        epoch: The current one, from 0.
        accuracy: On source validation data, or None.
        ceiling: Of confidence.
        weight: (N,) domain weights, or None.
        history: Records of the periods before.
        truth: (N,) true labels, for the record alone, or None.
        doubts: What speaks against labels, or None.
        shares: Estimated class shares of the target, or None.
        names: Of the K classes, for warnings; empty for their numbers.
    """

    epoch: int
    accuracy: float | None = None
    ceiling: float = 1.0
    weight: Tensor | None = None
    history: tuple[PeriodRecord, ...] = ()
    truth: Tensor | None = None
    doubts: Doubts | None = None
    shares: ClassShares | None = None
    names: tuple[str, ...] = ()


def advance(
    pool: PseudoLabelPool, selector: Selector, probs: Tensor, settings: Settings, context: PeriodContext
) -> PeriodRecord:
    """Select among the pool by probabilities (N, K), update it, and say what happened (Algorithm 1, lines 5-13).

    Without `relabel` only samples that have no label yet are candidates; the others serve the diagnostics. A pool
    without candidates records a period that selects nothing.

    Raises:
        ValueError: The probabilities do not fit the pool.
    """
    if probs.shape != (len(pool), pool.classes):
        raise ValueError(f"expected probabilities ({len(pool)}, {pool.classes}), got {tuple(probs.shape)}")
    rows = None if settings.relabel else pool.remaining()
    candidates = probs if rows is None else probs[rows]
    taken = None if rows is None else pool.histogram()
    selection = _select(selector, candidates, context, rows, taken)
    flip_rate, marginal = _against_last(pool, probs)
    prior, drift = selector_prior(selector, pool.classes, context.shares), marginal_drift(marginal, pool.marginal)

    def measured(made: Selection) -> PeriodRecord:
        found, estimates = _measure(pool, made, taken, context), _estimates(_labels_after(pool, made, rows), context)
        return replace(found, flip_rate=flip_rate, drift=drift, prior=prior, **estimates)

    record = measured(selection)
    record.verdict = diagnose(record, list(context.history), settings.limits)
    remedied = _remedy(selection, record, candidates, taken, settings)
    if remedied is not None:
        selection, name = remedied
        record = replace(measured(selection), verdict=record.verdict, remedy=name)
    pool.update(selection, rows, context.weight)
    pool.marginal.copy_(marginal)
    if context.truth is not None:
        check_truth(record, pool.labels, pool.given == record.period, context.truth)
    _warn(record, selector, context)
    return record


def _estimates(labels: Tensor, context: PeriodContext) -> dict[str, Any]:
    """Fields of a record that are estimated: the wrong ones of (N,) labels, and the class shares."""
    signals = {} if context.doubts is None else signals_against(labels, context.doubts)
    fields: dict[str, Any] = {"signals": signals, "wrong_estimate": None, "wrong_interval": None}
    if (estimate := estimate_wrong(signals)) is not None:
        fields |= {"wrong_estimate": estimate.share, "wrong_interval": [estimate.low, estimate.high]}
    if context.shares is not None:
        shares, low, high = (values.tolist() for values in context.shares[:3])
        fields |= {"class_shares": shares, "class_shares_low": low, "class_shares_high": high}
    return fields


def _labels_after(pool: PseudoLabelPool, selection: Selection, rows: Tensor | None) -> Tensor:
    """(N,) the labels that the pool would hold after a selection, -1 without one."""
    labels = torch.full_like(pool.labels, -1) if rows is None else pool.labels.clone()
    picked = selection.mask.nonzero()[:, 0]
    labels[picked if rows is None else rows[picked]] = selection.labels[picked]
    return labels


def selector_prior(selector: Selector, classes: int, estimated: ClassShares | None = None) -> list[float] | None:
    """The shares (K) of the classes that a selector was told or goes by, None where it was told none."""
    prior = getattr(selector, "prior", None)
    if isinstance(prior, str) and prior == "estimate" and estimated is not None:
        return estimated.cautious.tolist()
    if prior is None or isinstance(prior, str):
        return None
    shares = torch.as_tensor(prior, dtype=torch.float64)
    return (shares / shares.sum()).tolist() if shares.shape == (classes,) else None


def _select(
    selector: Selector, candidates: Tensor, context: PeriodContext, rows: Tensor | None, taken: Tensor | None
) -> Selection:
    if len(candidates) == 0:
        labels, confidence = candidates.new_zeros(0, dtype=torch.long), candidates.new_zeros(0)
        return Selection(labels.bool(), labels, confidence, confidence.new_tensor(torch.inf))
    weight = context.weight
    return selector.select(
        candidates,
        accuracy=context.accuracy,
        period=len(context.history),
        ceiling=context.ceiling,
        taken=taken,
        weight=weight if weight is None or rows is None else weight[rows],
        shares=None if context.shares is None else context.shares.cautious,
    )


def _against_last(pool: PseudoLabelPool, probs: Tensor) -> tuple[float | None, Tensor]:
    """Share of held labels that the model contradicts, and the mean prediction (K,) over the pool."""
    if len(pool) == 0:
        return None, torch.zeros_like(pool.marginal)
    labels, _ = most_confident(probs)
    flips, held = torch.stack([(pool.selected & (labels != pool.labels)).sum(), pool.selected.sum()]).tolist()
    valid = ~probs.isnan().any(1)
    mean = torch.where(valid[:, None], probs, 0).sum(0, dtype=torch.float64) / valid.sum().clamp_min(1)
    return (flips / held if held else None), mean


def _measure(pool: PseudoLabelPool, selection: Selection, taken: Tensor | None, context: PeriodContext) -> PeriodRecord:
    counts = class_counts(selection.labels.masked_fill(~selection.mask, -1), pool.classes)
    histogram = counts if taken is None else counts + taken
    finite = selection.confidence.isfinite()
    best = selection.confidence.amax().double() if finite.numel() else torch.tensor(-torch.inf)
    selected, invalid = int(counts.sum()), int((~finite).sum())
    total = int(histogram.sum())
    return PeriodRecord(
        epoch=context.epoch,
        period=len(context.history),
        pool=len(pool),
        candidates=selection.mask.numel(),
        selected=selected,
        total=total,
        share=total / max(len(pool), 1),
        source_accuracy=context.accuracy,
        threshold=_plain(selection.threshold),
        ceiling=context.ceiling,
        max_confidence=float(best) if bool(best.isfinite()) else None,
        invalid=invalid,
        class_histogram=histogram.tolist(),
        **class_spread(histogram)._asdict(),
        flip_rate=None,
        drift=None,
        by_rank=selection.by_rank,
    )


def _plain(threshold: Tensor) -> float | list[float | None] | None:
    values = [v if abs(v) != float("inf") else None for v in threshold.double().reshape(-1).tolist()]
    return values if threshold.ndim else values[0]


def _remedy(
    selection: Selection, record: PeriodRecord, candidates: Tensor, taken: Tensor | None, settings: Settings
) -> tuple[Selection, str] | None:
    """Another selection and its name, where the settings ask for one."""
    if record.selected == 0 and record.candidates and settings.on_empty == "relax":
        count = max(int(settings.relax_share * record.pool), 1)
        return select_most_confident(candidates, count), "relaxed"
    if record.verdict is Verdict.FEW_CLASSES and record.selected and settings.on_collapse == "rebalance":
        return select_top(candidates, spread_quota(record, taken, candidates)), "rebalanced"
    return None


def spread_quota(record: PeriodRecord, taken: Tensor | None, candidates: Tensor) -> Tensor:
    """(K,) how many more of each class spread the set as the record's prior, or evenly; as many as were selected."""
    classes, device = candidates.shape[1], candidates.device
    taken = torch.zeros(classes, dtype=torch.long, device=device) if taken is None else taken
    prior = [1 / classes] * classes if record.prior is None else record.prior
    due = (record.selected + int(taken.sum())) * torch.tensor(prior, dtype=torch.float64, device=device)
    return ((due - 1e-9).ceil().long() - taken).clamp_min(0)


def stop_reason(record: PeriodRecord, barren: int, settings: Settings) -> str:
    """Why training ends with this period, the last of `barren` in a row that added nothing; empty if it goes on."""
    if settings.on_collapse == "stop" and record.verdict is not Verdict.HEALTHY:
        return f"the pseudo-labels are {record.verdict.value}"
    if settings.patience_periods is not None and barren >= settings.patience_periods:
        return f"{barren} periods in a row added nothing"
    return ""


def _warn_of_absent(record: PeriodRecord, selector: Selector, context: PeriodContext, where: str) -> None:
    """Warn once of classes that the target seems to lack, where the selector takes all classes for even."""
    even = isinstance(selector, ClassBalancedShare) and selector.prior is None
    if even and record.absent() and not any(before.absent() for before in context.history):
        named = [context.names[k] if context.names else str(k) for k in record.absent()]
        warnings.warn(
            f"{where}: class {', '.join(named)} seems to be absent from the target, or not to be "
            "recognised there, but labels are spread evenly over all classes: give the true shares as prior, or "
            "prior='estimate'",
            CollapseWarning,
            stacklevel=4,
        )


def _warn(record: PeriodRecord, selector: Selector, context: PeriodContext) -> None:
    where = f"period {record.period} (epoch {record.epoch})"
    _warn_of_absent(record, selector, context, where)
    if record.selected == 0 and record.candidates:
        warnings.warn(
            f"{where} selected none of {record.candidates} samples: largest confidence {record.max_confidence}, "
            f"{_asked(record)}. {advice_when_stalled(selector, record)}",
            StalledWarning,
            stacklevel=3,
        )
    if record.invalid:
        warnings.warn(
            f"{where}: {record.invalid} of {record.candidates} samples have logits that are not numbers",
            CollapseWarning,
            stacklevel=3,
        )
    if record.verdict is not Verdict.HEALTHY and record.candidates:
        remedy = f"; {record.remedy}" if record.remedy else ""
        warnings.warn(f"{where}: {_REASONS[record.verdict](record)}{remedy}", CollapseWarning, stacklevel=3)


def _asked(record: PeriodRecord) -> str:
    """What samples had to reach."""
    if record.by_rank:
        return "by rank"
    return f"threshold {record.threshold}, label smoothing caps confidence near {record.ceiling:.3f}"


def advice_when_stalled(selector: Selector, record: PeriodRecord) -> str:
    """What to change of the selector in use where it selects nothing."""
    others = "take ClassBalancedShare, which has no threshold"
    if record.by_rank:
        return "Raise its shares: they ask for no sample" if record.max_confidence is not None else "No logit is finite"
    if isinstance(selector, AdaptiveThreshold) and not selector.ceiling_aware:
        return f"Lower rho or the label smoothing, make the threshold ceiling_aware, or {others}"
    if isinstance(selector, AdaptiveThreshold | ICANSelector):
        return f"Lower rho, or {others}"
    if isinstance(selector, FixedThreshold | FlexThreshold):
        return f"Lower its threshold or the label smoothing, or {others}"
    return f"Let it ask for less, or {others}"


_REASONS = {
    Verdict.LIBERAL: lambda r: (
        f"{r.share:.0%} of the pool has a pseudo-label and the model contradicts {r.flip_rate:.0%} of them"
    ),
    Verdict.FEW_CLASSES: lambda r: (
        f"the largest class holds {r.max_share:.0%} of the pseudo-labels, {r.empty_classes} of "
        f"{len(r.class_histogram)} classes have none"
    ),
    Verdict.WRONG_LABELS: lambda r: (
        f"{said_wrong(r)}: check some before you trust them; label a few target samples of each class, or take a "
        "source closer to the target"
    ),
    Verdict.HYPER_CONSERVATIVE: lambda r: f"{r.selected} of {r.candidates} samples selected, {_asked(r)}",
}
