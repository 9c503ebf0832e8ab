"""Pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from robustvision_core.run import plots
from torch import Tensor

from fdiv_noisy.estimation import NoiseReport
from fdiv_noisy.estimation.doubts import SHARES


def training(records: Sequence[dict], path: str | os.PathLike[str]) -> None:
    """Loss, and the score that selects the epoch, over epochs."""
    epochs = [record["epoch"] for record in records]
    names = {"loss": "loss (noisy training labels)", "val_score": "selection score (noisy validation labels)"}
    series = {title: (epochs, [record[key] for record in records]) for key, title in names.items() if key in records[0]}
    plots.curves(series, path, xlabel="epoch", ylabel="value", title="training")


def confusion(counts: Tensor, classes: Sequence[str], path: str | os.PathLike[str], accuracy: float) -> None:
    """Shares (K, K) of each true class's samples by predicted class."""
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    title = f"clean test set, {100 * accuracy:.1f} % right"
    plots.matrix(shares, classes, path, title=title, xlabel="predicted", ylabel="true class")


def transition(matrix: Tensor, classes: Sequence[str], path: str | os.PathLike[str], title: str) -> None:
    """A noise model (K, K)."""
    plots.matrix(matrix, classes, path, title=title, xlabel="noisy label", ylabel="true class")


def noise(
    report: NoiseReport,
    rates: Mapping[str, float],
    typical: Sequence[float],
    classes: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    """The estimated noise, and beside it what raises doubts: overlap of classes, and estimators that disagree."""
    drawn, (left, right) = plots.figure(11, 5, ncols=2)
    left.imshow(report.matrix().cpu().float().numpy(), cmap="Blues", vmin=0, vmax=1)
    left.set(xlabel="noisy label", ylabel="true class", title=f"{report.structure} noise, {report.rate:.0%} wrong")
    if len(classes) <= 20:
        left.set_xticks(range(len(classes)), classes, rotation=90)
        left.set_yticks(range(len(classes)), classes)
    low, high = report.interval
    right.axhspan(low, high, alpha=0.15, label="between")
    right.axhline(report.rate, label="estimate")
    right.plot(SHARES, typical, marker="o", color="black", label="labels unlike the guess")
    for number, (name, rate) in enumerate(rates.items()):
        right.axhline(rate, linestyle=":", color=f"C{number + 1}", label=name)
    right.set(xscale="log", ylim=(0, 1), xlabel="most typical share of each class", ylabel="wrong labels")
    right.set_title("rising from nothing: overlap; level: noise", fontsize=9)
    right.legend(fontsize=8)
    plots.save(drawn, path)
