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

ADVICE = {
    Verdict.HEALTHY: "the pseudo-labels are healthy: nothing to mend",
    Verdict.LIBERAL: (
        "liberal: much of the target has a label, and the network contradicts ever more of them. Take fewer "
        "(smaller --shares, larger --rho or --threshold), build the set anew (--relabel), and keep the network "
        "from learning its errors by heart (--augment strong)"
    ),
    Verdict.FEW_CLASSES: (
        "few classes: some classes take over. Select by class (--selector balanced, with --prior if classes are not "
        "even, or --on-collapse rebalance), estimate batch norm on the target (--batch-norm target), or label a few "
        "target samples of each class (--labelled 10)"
    ),
    Verdict.HYPER_CONSERVATIVE: (
        "hyper-conservative: next to nothing is selected. Where the threshold is above the ceiling, label smoothing "
        "forbids it: --label-smoothing 0, or --ceiling-aware. Else lower --rho, take --selector balanced, which "
        "has no threshold, or label a few target samples (--labelled 10)"
    ),
}


def diagnose_run(config: DiagnoseConfig) -> None:
    """Print the periods of a run and what to do."""
    read_config(config.run, TrainConfig, "pseudolabel-da train")
    state = load_checkpoint(pathlib.Path(config.run) / "checkpoint.pt")["step"]["_extra_state"]
    periods = [PeriodRecord.from_dict(record) for record in state["periods"]]
    if not periods:
        sys.stdout.write("no period yet: the run selects no pseudo-labels, or has not come to the adaptation\n")
        return
    stopped = [f"stopped: {state['stopped']}"] if state["stopped"] else []
    sys.stdout.write("\n".join([table(periods), *stopped, *advice(periods)]) + "\n")


def table(periods: Sequence[PeriodRecord]) -> str:
    """One line a period."""
    heads = ("epoch", "selected", "wrong", "total", "share", "threshold", "ceiling")
    heads += ("classes", "largest", "empty", "flips", "drift", "verdict")
    rows = [heads, *(_row(record) for record in periods)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def advice(periods: Sequence[PeriodRecord]) -> list[str]:
    """What to do, one line for each verdict that was given; healthy only where nothing else was."""
    given = [verdict for verdict in ADVICE if any(record.verdict is verdict for record in periods)]
    failures = [verdict for verdict in given if verdict is not Verdict.HEALTHY]
    return [ADVICE[verdict] for verdict in failures or given]


def _row(record: PeriodRecord) -> tuple[str, ...]:
    threshold = record.threshold
    levels = [t for t in threshold if t is not None] if isinstance(threshold, list) else None
    shown = _number(threshold) if not isinstance(threshold, list) else f"{min(levels):.3f}+" if levels else "-"
    return (
        str(record.epoch),
        str(record.selected),
        "-" if record.wrong is None else str(record.wrong),
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
