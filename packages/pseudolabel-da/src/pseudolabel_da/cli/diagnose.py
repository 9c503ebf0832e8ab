"""`pseudolabel-da diagnose`: what a run's records say."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from robustvision_core.run.folder import load_checkpoint, read_config

from pseudolabel_da.cli.options import DiagnoseConfig
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord, Verdict
from pseudolabel_da.diagnosis.error import said_wrong


def remedies(verdict: Verdict, config: TrainConfig) -> list[str]:
    """What to change of `config` after a verdict: only what it does not do already."""
    selection, training = config.selection, config.training
    by_share = config.method == "pseudo" and selection.selector in ("balanced", "top")
    fewer = "take fewer (smaller --shares)" if by_share else "take fewer (larger --rho or --threshold)"
    offers = {
        Verdict.LIBERAL: [
            (fewer, True),
            ("build the set anew (--relabel)", not selection.relabel),
            ("keep the network from learning its errors by heart (--augment strong)", training.augment != "strong"),
        ],
        Verdict.FEW_CLASSES: [
            (
                "select by class (--selector balanced, with --prior if classes are not even)",
                selection.selector != "balanced",
            ),
            ("give the shares of the classes, where they are known (--prior)", selection.selector == "balanced"),
            ("estimate batch norm on the target (--batch-norm target)", training.batch_norm != "target"),
            ("label a few target samples of each class (--labelled 10)", True),
        ],
        Verdict.WRONG_LABELS: [
            ("look at some of them before you use the network", True),
            ("label a few target samples of each class (--labelled 10)", True),
            ("keep the network from learning its errors by heart (--augment strong)", training.augment != "strong"),
            ("give the shares of the classes (--prior estimate)", selection.prior == "even"),
            (fewer, True),
        ],
        Verdict.HYPER_CONSERVATIVE: [
            ("raise --shares", by_share),
            ("lift the ceiling (--label-smoothing 0)", not by_share and training.label_smoothing > 0),
            ("lower the threshold by it (--ceiling-aware)", selection.selector == "adaptive" and not by_share),
            ("lower --rho or --threshold", not by_share),
            ("take --selector balanced, which has no threshold", not by_share),
            ("label a few target samples (--labelled 10)", True),
        ],
    }
    return [offer for offer, fits in offers.get(verdict, []) if fits]


SEEN = {
    Verdict.LIBERAL: "liberal: much of the target has a label, and the network contradicts ever more of them",
    Verdict.FEW_CLASSES: "few classes: some classes take over",
    Verdict.WRONG_LABELS: "wrong labels: more of them are estimated to be wrong than a network can learn from",
    Verdict.HYPER_CONSERVATIVE: "hyper-conservative: next to nothing is selected",
}


def diagnose_run(config: DiagnoseConfig) -> None:
    """Print the periods of a run and what to do."""
    trained = read_config(config.run, TrainConfig, "pseudolabel-da train")
    state = load_checkpoint(pathlib.Path(config.run) / "checkpoint.pt")["step"]["_extra_state"]
    periods = [PeriodRecord.from_dict(record) for record in state["periods"]]
    if not periods:
        sys.stdout.write("no period yet: the run selects no pseudo-labels, or has not come to the adaptation\n")
        return
    stopped = [f"stopped: {state['stopped']}"] if state["stopped"] else []
    sys.stdout.write("\n".join([table(periods), *stopped, *advice(periods, trained)]) + "\n")


def table(periods: Sequence[PeriodRecord]) -> str:
    """One line a period."""
    heads = ("epoch", "selected", "wrong", "estimate", "total", "share", "threshold", "ceiling")
    heads += ("classes", "largest", "empty", "flips", "drift", "verdict")
    rows = [heads, *(_row(record) for record in periods)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def advice(periods: Sequence[PeriodRecord], config: TrainConfig) -> list[str]:
    """What to do, one line for each failure; where there is none, what is known of the last period."""
    failures = [verdict for verdict in SEEN if any(record.verdict is verdict for record in periods)]
    lines = [f"{SEEN[verdict]}. Try this: {'; '.join(remedies(verdict, config))}" for verdict in failures]
    return lines or [f"no failure seen: {said_wrong(periods[-1])}; look at some of them before you use the network"]


def _row(record: PeriodRecord) -> tuple[str, ...]:
    threshold = record.threshold
    levels = [t for t in threshold if t is not None] if isinstance(threshold, list) else None
    shown = _number(threshold) if not isinstance(threshold, list) else f"{min(levels):.3f}+" if levels else "-"
    return (
        str(record.epoch),
        str(record.selected),
        "-" if record.wrong is None else str(record.wrong),
        "-" if record.wrong_estimate is None else f"{record.wrong_estimate:.0%}",
        str(record.total),
        f"{record.share:.3f}",
        shown,
        f"{record.ceiling:.3f}",
        f"{record.effective_classes:.1f}",
        f"{record.max_share:.2f}",
        str(record.empty_classes),
        _number(record.flip_rate),
        _number(record.drift),
        record.verdict.value,
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"
