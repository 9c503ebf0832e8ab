"""Pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from robustvision_core.run import plots


def training(records: Sequence[dict], path: str | os.PathLike[str]) -> None:
    """Loss and validation accuracy over epochs."""
    epochs = [record["epoch"] for record in records]
    names = {"loss": "loss", "val_accuracy": "accuracy on validation classes"}
    series = {title: (epochs, [record[key] for record in records]) for key, title in names.items()}
    plots.curves(series, path, xlabel="epoch", ylabel="value", title="training")


def bars(groups: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str], *, title: str, chance: float) -> None:
    """Accuracies in percent by group and method, with a line at chance."""
    drawn, axes = plots.figure()
    methods = list(next(iter(groups.values())))
    width = 0.8 / len(methods)
    for place, method in enumerate(methods):
        heights = [of_group[method] for of_group in groups.values()]
        drawn_bars = axes.bar([x + place * width for x in range(len(groups))], heights, width, label=method)
        axes.bar_label(drawn_bars, fmt="%.0f")
    axes.axhline(chance, color="grey", linestyle=":", label="chance")
    axes.set_xticks([x + width * (len(methods) - 1) / 2 for x in range(len(groups))], list(groups))
    axes.set(ylabel="accuracy on novel classes, %", ylim=(0, 105), title=title)
    axes.legend(fontsize=8)
    plots.save(drawn, path)


def exchange(table: Sequence[Sequence[float]], path: str | os.PathLike[str], *, chance: float, cue: str) -> None:
    """Accuracies (0 to 1) of the probe of each environment (rows) in each environment (columns)."""
    drawn, axes = plots.figure()
    shown = axes.imshow(table, vmin=chance, vmax=1, cmap="viridis")
    for i, row in enumerate(table):
        for j, value in enumerate(row):
            colour = "black" if value > (1 + chance) / 2 else "white"
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=colour)
    ticks = range(len(table))
    axes.set_xticks(ticks, [str(k + 1) for k in ticks])
    axes.set_yticks(ticks, [str(k + 1) for k in ticks])
    axes.set(xlabel="tested in environment", ylabel="fitted in environment", title=f"label from {cue.lower()}, %")
    drawn.colorbar(shown, ax=axes)
    plots.save(drawn, path)
