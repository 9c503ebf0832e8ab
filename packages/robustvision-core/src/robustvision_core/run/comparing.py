"""The verb `compare`: finished runs side by side."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustvision_core.config import RUN_FIELDS, flatten, read_object
from robustvision_core.errors import UserError
from robustvision_core.run import plots
from robustvision_core.run.comparison import CompareOptions
from robustvision_core.run.files import write_csv
from robustvision_core.run.folder import read_metrics
from robustvision_core.run.loggers import scalars

PANELS = 9  # curves in the picture
WIDEST = 40  # characters of a cell that are printed


@dataclass(frozen=True)
class Finished:
    """What a run folder holds.

    Attributes:
        name: What to call it.
        options: What was asked, by dotted name.
        figures: What came out: numbers of the summary, or of the last epoch where there is none.
        records: One an epoch.
        done: Whether there is a summary.
    """

    name: str
    options: Mapping[str, Any]
    figures: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]
    done: bool


def compare(config: CompareOptions) -> pathlib.Path:
    """Print a table of runs and write it with their curves; returns the folder.

    Raises:
        UserError: A folder holds no run.
    """
    runs = [read_run(folder, name) for folder, name in zip(config.runs, _names(config.runs), strict=True)]
    rows = table_of(runs)
    sys.stdout.write(_printed(rows))
    out = pathlib.Path(config.out)
    write_csv(out / "compare.csv", rows)
    drawn = draw(runs, out / "compare.png")
    sys.stdout.write(f"{out / 'compare.csv'}{f', {drawn}' if drawn else ''}\n")
    return out


def read_run(folder: str, name: str) -> Finished:
    """What a run folder holds.

    Raises:
        UserError: It has no `config.json`, or one that is damaged.
    """
    place = pathlib.Path(folder)
    if not (place / "config.json").is_file():
        raise UserError(f"no run in {folder}: expected a folder with config.json, as training writes")
    options = read_object(place / "config.json")
    done = (place / "summary.json").is_file()
    records = read_metrics(place)
    if done:
        summary = {key: value for key, value in read_object(place / "summary.json").items() if key != "config"}
        figures = scalars(summary)
    else:
        figures = scalars(records[-1]) if records else {}
    return Finished(name, dict(flatten(options)), figures, records, done)


def table_of(runs: Sequence[Finished]) -> list[list[str]]:
    """Rows of a table with a column a run: the options that differ, the epochs, and the figures."""
    rows = [["", *(run.name for run in runs)]]
    for option in _all(run.options for run in runs):
        values = [_text(run.options.get(option)) for run in runs]
        if option.split(".")[0] not in RUN_FIELDS and len(set(values)) > 1:
            rows.append([f"--{option.replace('_', '-')}", *values])
    rows.append(["epochs done", *(f"{len(run.records)}{'' if run.done else ', not finished'}" for run in runs)])
    for figure in _all(run.figures for run in runs):
        rows.append([figure, *(_text(run.figures.get(figure)) for run in runs)])
    return rows


def draw(runs: Sequence[Finished], path: pathlib.Path) -> pathlib.Path | None:
    """Curves by epoch, a panel a quantity; None where no run has two epochs."""
    curves = [[(record["epoch"], scalars(record)) for record in run.records] for run in runs]
    names = [name for name in _all(values for run in curves for _, values in run) if name != "seconds"]
    names = [name for name in names if any(sum(name in values for _, values in run) > 1 for run in curves)][:PANELS]
    if not names:
        return None
    drawn, places = plots.panels(len(names), 3, 4.2, 3.2)
    for place, name in zip(places, names, strict=True):
        for run, curve in zip(runs, curves, strict=True):
            points = [(epoch, values[name]) for epoch, values in curve if name in values]
            if points:
                place.plot(*zip(*points, strict=True), marker=".", label=run.name)
        place.set(xlabel="epoch", title=name)
        place.grid(alpha=0.3)
    places[0].legend(fontsize=8)
    plots.save(drawn, path)
    return path


def _names(folders: Sequence[str]) -> list[str]:
    """The last parts of the paths that tell the runs apart."""
    parts = [pathlib.Path(folder).absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return list(folders)


def _all(of: Any) -> list[str]:
    """Every name in the mappings, each once, in the order in which they come."""
    return list(dict.fromkeys(name for mapping in of for name in mapping))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _printed(rows: Sequence[Sequence[str]]) -> str:
    """The table in columns; long cells are cut, those of the CSV are whole."""
    cut = [[cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 1]}…" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cut]
    return "\n".join(lines) + "\n"
