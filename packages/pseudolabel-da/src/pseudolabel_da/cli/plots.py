"""Pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from robustvision_core.run import plots
from robustvision_core.run.metrics import accuracy
from torch import Tensor

from pseudolabel_da.diagnosis.diagnostics import PeriodRecord


def training(records: Sequence[dict], pretrain: int, path: str | os.PathLike[str]) -> None:
    """Loss over epochs, nothing where no step was made; the two phases have losses of their own."""
    trained = [record for record in records if "loss" in record]
    if not trained:
        return
    phases = {
        "labelled samples alone": [r for r in trained if r["epoch"] <= pretrain],
        "adaptation": [r for r in trained if r["epoch"] > pretrain],
    }
    series = {name: ([r["epoch"] for r in part], [r["loss"] for r in part]) for name, part in phases.items() if part}
    plots.curves(series, path, xlabel="epoch", ylabel="loss", title="training")


def confusion(counts: Tensor, classes: Sequence[str], path: str | os.PathLike[str], title: str) -> None:
    """Shares (K, K) of each true class's samples by predicted class (the paper's figures 2 and 3)."""
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    plots.matrix(
        shares, classes, path, title=f"{title}: {accuracy(counts):.1%} right", xlabel="predicted", ylabel="true class"
    )


def periods(records: Sequence[PeriodRecord], path: str | os.PathLike[str]) -> None:
    """Samples selected in each period, right and wrong (the paper's figures 4 and 5); nothing without a period."""
    if not records:
        return
    drawn, axes = plots.figure(max(6.4, 0.4 * len(records)), 4.0)
    places = [record.period for record in records]
    wrong = [record.wrong or 0 for record in records]
    right = [record.selected - bad for record, bad in zip(records, wrong, strict=True)]
    known = all(record.wrong is not None for record in records)
    axes.bar(places, right, color="tab:blue", label="right" if known else "selected")
    if known:
        axes.bar(places, wrong, bottom=right, color="tab:red", label="wrong")
    for record in records:
        rate = f"\n{record.wrong / record.selected:.1%}" if record.wrong is not None and record.selected else ""
        axes.annotate(
            f"{record.selected}{rate}", (record.period, record.selected), ha="center", va="bottom", fontsize=7
        )
    axes.set_xticks(places, [str(record.epoch) for record in records])
    axes.margins(y=0.15)
    axes.set(xlabel="epoch of adaptation", ylabel="samples", title="selected in each period, and share of wrong labels")
    axes.legend(fontsize=8)
    plots.save(drawn, path)
