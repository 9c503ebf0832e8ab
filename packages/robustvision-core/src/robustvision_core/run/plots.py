"""Pictures of a run, written as PNG files without a display."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
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
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as boxes, which say it themselves
        drawn.savefig(temporary, format="png", dpi=150)


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure with `count` panels, up to `columns` in a row, each of so many inches; places left over are empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    drawn, axes = figure(width * columns, height * rows, nrows=rows, ncols=columns, squeeze=False)
    for place in axes.flat[count:]:
        place.set_axis_off()
    return drawn, list(axes.flat[:count])


def show(axes: Any, image: Tensor) -> None:
    """Draw an image (1 or 3, H, W), bytes or in [0, 1], without ticks."""
    most = 255 if image.dtype.itemsize == 1 else 1
    shown = image.detach().cpu().clamp(0, most).numpy()
    axes.imshow(shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=most)
    axes.set_axis_off()


def sheet(
    images: Iterable[Tensor],
    titles: Sequence[str],
    path: str | os.PathLike[str],
    *,
    columns: int = 6,
    width: float = 1.5,
    height: float = 1.75,
    fontsize: int = 8,
) -> None:
    """Draw images as of `show`, each under its title."""
    drawn, places = panels(len(titles), columns, width, height)
    for place, image, title in zip(places, images, titles, strict=True):
        show(place, image)
        place.set_title(title, fontsize=fontsize)
    save(drawn, path)


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
