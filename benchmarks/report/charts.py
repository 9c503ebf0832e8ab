"""The drawings of a claim: figures with their bars and the paper's mark, and curves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.drawing import Drawing, Scale, ticks
from benchmarks.report.claims import Claim
from benchmarks.report.figures import Figure, numbers, reach, select

WIDTH, LEFT, RIGHT, ROW = 720, 250, 590, 24
GAP, LETTER = 14, 6.6  # between a label and the axis, and the width of a letter of a label
MARKS = {"paper": "the paper", "aim": "the aim"}
Curve = list[tuple[float, float]]


def drawings(claim: Claim) -> Iterator[str]:
    """SVG texts: one a unit of the figures that are worth comparing, and one for curves."""
    units = list(dict.fromkeys(one.unit for one in claim.figures))
    for unit in units:
        figures = [one for one in claim.figures if one.unit == unit]
        if len(figures) > 1 or figures[0].paper is not None:
            yield dots(claim.claim, figures, unit)
    for asked in claim.curves:
        yield lines(claim.claim, series(claim.package, asked), asked.get("xlabel", ""), asked.get("ylabel", ""))


def dots(title: str, figures: Sequence[Figure], unit: str) -> str:
    """A row a figure: its value as a disc, its bar, and what the paper has as an upright mark."""
    height = 52 + ROW * len(figures)
    sheet = Drawing(WIDTH, height, title, ground=True)
    left = max(LEFT, 2 * GAP + LETTER * max(len(one.label) for one in figures))
    x = Scale(_range(figures), (left, RIGHT))
    _frame(sheet, x, height, unit)
    for row, one in enumerate(figures):
        y = 20 + ROW * row
        sheet.text((left - GAP, y + 4), one.label, 12.5, "end")
        if one.spread is not None:
            sheet.line([(x(one.value - one.spread), y), (x(one.value + one.spread), y)], sheet.palette.main, 2.5)
        for place, mark in ((one.paper, sheet.palette.series[1]), (one.aim, sheet.palette.series[3])):
            if place is not None:
                sheet.line([(x(place), y - 8), (x(place), y + 8)], mark, 3)
        sheet.dot((x(one.value), y), 4.5, sheet.palette.main)
        sheet.text((RIGHT + GAP, y + 4), one.text, 12.5)
    _legend(sheet, figures, left, height)
    return sheet.svg()


def _range(figures: Sequence[Figure]) -> tuple[float, float]:
    places = [value for one in figures for value in (one.paper, one.aim) if value is not None]
    for one in figures:
        places += [one.value - (one.spread or 0), one.value + (one.spread or 0)]
    low, high = min(places), max(places)
    if 0 < low < high / 2:
        low = 0.0
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - (room if low else 0), high + room


def _frame(sheet: Drawing, x: Scale, height: float, unit: str) -> None:
    for value in ticks(*x.values):
        sheet.line([(x(value), 6), (x(value), height - 34)], sheet.palette.faint, 0.4)
        sheet.text((x(value), height - 20), f"{value:g}", 11, "middle", sheet.palette.faint)
    sheet.text((WIDTH - 10, height - 5), unit, 11, "end", sheet.palette.faint)


def _legend(sheet: Drawing, figures: Sequence[Figure], left: float, height: float) -> None:
    bars = {"95 % interval" if one.interval else "standard deviation" for one in figures if one.spread is not None}
    said = [f"bars: {', '.join(sorted(bars))}"] if bars else []
    said += [
        f"{colour} mark: {MARKS[name]}"
        for name, colour in (("paper", "orange"), ("aim", "green"))
        if any(getattr(one, name) is not None for one in figures)
    ]
    sheet.text((left, height - 5), "; ".join(said), 11, "start", sheet.palette.faint)


def series(package: str, asked: Mapping[str, Any]) -> dict[str, Curve]:
    """Curves by name: columns of rows, or lists inside cells averaged over those of one name."""
    rows = select(package, asked)
    if "list" not in asked:
        return {
            column: [(numbers(reach(row, asked["x"]))[0], numbers(reach(row, column))[0]) for row in rows]
            for column in asked["y"]
        }
    held: dict[str, list[Curve]] = {}
    for row in rows:
        held.setdefault(str(reach(row, asked["by"])), []).append(_curve(reach(row, asked["list"]), asked))
    return {name: [_mean(points) for points in zip(*curves, strict=False)] for name, curves in held.items()}


def _curve(points: Sequence[Any], asked: Mapping[str, Any]) -> Curve:
    if "y" not in asked:
        return [(float(place), float(value)) for place, value in enumerate(points, 1)]
    held = [point for point in points if asked["y"] in point]
    return [(float(reach(point, asked["x"])), float(reach(point, asked["y"]))) for point in held]


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.mean(x for x, _ in points), statistics.mean(y for _, y in points)


def lines(title: str, curves: Mapping[str, Curve], xlabel: str, ylabel: str, height: float = 280) -> str:
    """Curves with their names at the right."""
    sheet = Drawing(WIDTH, height, title, ground=True)
    xs, ys = ([point[axis] for curve in curves.values() for point in curve] for axis in (0, 1))
    x, y = Scale((min(xs), max(xs)), (56, 520)), Scale((min(ys), max(ys)), (height - 50, 34))
    for value in ticks(*x.values):
        sheet.text((x(value), height - 32), f"{value:g}", 11, "middle", sheet.palette.faint)
    for value in ticks(*y.values):
        sheet.line([(x.places[0], y(value)), (x.places[1], y(value))], sheet.palette.faint, 0.4)
        sheet.text((48, y(value) + 4), f"{value:g}", 11, "end", sheet.palette.faint)
    sheet.text((x.places[0], 18), ylabel, 12, "start", sheet.palette.faint)
    sheet.text((x.places[1], height - 12), xlabel, 12, "end", sheet.palette.faint)
    ends = _apart([y(curve[-1][1]) for curve in curves.values()])
    for place, (name, curve) in enumerate(curves.items()):
        colour = sheet.palette.series[place % len(sheet.palette.series)]
        sheet.line([(x(a), y(b)) for a, b in curve], colour, 2.2, "" if place < len(sheet.palette.series) else "5 3")
        sheet.text((x.places[1] + 10, ends[place] + 4), name, 12.5, "start", colour, bold=True)
    return sheet.svg()


def _apart(places: Sequence[float], least: float = 15) -> list[float]:
    """Places moved down until none covers another."""
    moved = list(places)
    order = sorted(range(len(places)), key=places.__getitem__)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    return moved
