"""Characters whose colours give the label away in training and mislead in the test, and what two methods make of it."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.data import load

from benchmarks.drawing import Drawing, mixed
from scripts.pictures import sheet as page

ROWS = {"environment 1": (0, 1, 2, 3, 4), "environment 2": (2, 4, 3, 0, 1), "test": None}
PAINTS = ("#d1453b", "#2f7fd1", "#2f9e58", "#b07a00", "#9156b8")


def write(folder: pathlib.Path = page.FOLDER) -> None:
    """Draw glyphs of five classes in three rows, and the measured accuracies."""
    data = load("glyphs", "test", size=16)
    rows = [data.images[(data.labels == label).nonzero()[:6, 0], 0].float() / 255 for label in range(5)]
    found = page.results("rml_meta", "colour")["cells"]
    means = {method: mean(found, method, "shifted") for method in ("MAML", "RML")}

    def draw(sheet: Drawing) -> None:
        tasks(sheet, rows)
        looks = zip(means.items(), (sheet.palette.series[1], sheet.palette.main), strict=True)
        bars = [(name, value, f"{value:.0f} %", look) for (name, value), look in looks]
        page.bars(sheet, "new characters, colours changed", bars, 100)

    title = f"Once colours mislead, MAML is right in {means['MAML']:.0f} % and RML in {means['RML']:.0f} %"
    page.write("rml_meta", title, draw, folder)


def mean(cells: list[dict], method: str, column: str) -> float:
    """Over the seeds of a method where each environment has colours of its own."""
    held = [cell[column] for cell in cells if cell["method"] == method and cell["map"] == "of each environment"]
    return sum(held) / len(held)


def tasks(sheet: Drawing, classes: list[torch.Tensor]) -> None:
    """A row an environment, two images a class: the colour follows the class, in the test it does not."""
    generator = torch.Generator().manual_seed(1)
    for row, (name, paints) in enumerate(ROWS.items()):
        top = 16 + 68 * row
        sheet.text((0, top + 24), name, 13, colour=sheet.palette.faint)
        for place in range(10):
            drawn = classes[place // 2][2 * row + place % 2]
            paint = paints[place // 2] if paints else int(torch.randint(5, (1,), generator=generator))
            colour = mixed(PAINTS[paint], sheet.palette.ink, 0.1)
            pixels = [[colour if value > 0.2 else "" for value in line] for line in drawn.tolist()]
            sheet.pixels((104 + 36 * place + 6 * (place // 2), top), 33, pixels)


if __name__ == "__main__":
    page.main(write)
