"""Pictures of a run, written as PNG files without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustvision_core.run.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def figure(width: float = 6.4, height: float = 4.0, **subplots: Any) -> tuple[Figure, Any]:
    """A figure and its axes (an array where `nrows` or `ncols` is given), drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(**subplots)


def save(drawn: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        drawn.savefig(temporary, format="png", dpi=150)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | os.PathLike[str],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> None:
    """Draw named (x, y) series as lines."""
    drawn, axes = figure()
    for name, (x, y) in series.items():
        axes.plot(x, y, marker=".", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(drawn, path)


def matrix(
    values: Tensor, names: Sequence[str], path: str | os.PathLike[str], *, title: str = "", xlabel: str, ylabel: str
) -> None:
    """Draw a (K, K) matrix of shares in [0, 1]; entries are written out for K up to 20."""
    shown = values.detach().cpu().float().numpy()
    k = len(names)
    drawn, axes = figure(max(4.0, 0.45 * min(k, 20)) + 1.5, max(4.0, 0.45 * min(k, 20)) + 0.5)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if k <= 20:
        axes.set_xticks(range(k), names, rotation=90)
        axes.set_yticks(range(k), names)
        for row in range(k):
            for column in range(k):
                value = float(shown[row, column])
                colour = "white" if value > 0.5 else "black"
                axes.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=colour)
    save(drawn, path)
