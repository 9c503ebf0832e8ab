"""What the pictures share: their size, their charts, and where they are written."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.drawing import PALETTES, Drawing, Palette, colour, grey

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "_static" / "front"
WIDTH, HEIGHT = 760, 216
CHART = 500
"""Where the chart begins."""


def write(name: str, title: str, draw: Callable[[Drawing], None], folder: pathlib.Path = FOLDER) -> None:
    """`NAME.svg` and `NAME-dark.svg`, each drawn by `draw`."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, palette in PALETTES.items():
        sheet = Drawing(WIDTH, HEIGHT, title, palette)
        draw(sheet)
        (folder / f"{name}{suffix}.svg").write_text(sheet.svg(), encoding="utf-8")


def results(package: str, name: str) -> dict[str, Any]:
    """What a benchmark has written."""
    path = ROOT / "benchmarks" / package / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def inked(image: Any, palette: Palette) -> list[list[str]]:
    """Colours of a grey image (H, W) in [0, 1] where 1 is ink."""
    return [[grey(value, palette) for value in row] for row in image.tolist()]


def coloured(image: Any) -> list[list[str]]:
    """Colours of an image (3, H, W) in [0, 1]."""
    return [[colour(pixel) for pixel in row] for row in image.permute(1, 2, 0).tolist()]


def bars(sheet: Drawing, title: str, rows: Sequence[tuple[str, float, str, str]], most: float) -> None:
    """Level bars of the chart: name, value, what is written behind, and colour of each."""
    sheet.text((CHART, 22), title, 13, colour=sheet.palette.faint)
    step = (HEIGHT - 40) / len(rows)
    for row, (name, value, said, look) in enumerate(rows):
        top = 36 + row * step
        sheet.text((CHART, top + 12), name, 13)
        length = max((WIDTH - CHART - 52) * value / most, 2)
        sheet.box((CHART, top + 18), length, 15, look, 2)
        sheet.text((CHART + length + 7, top + 31), said, 14, colour=look, bold=True)


def main(write: Callable[[], None]) -> None:
    """Draw, and say where."""
    write()
    sys.stdout.write(f"pictures in {FOLDER.relative_to(ROOT)}\n")
