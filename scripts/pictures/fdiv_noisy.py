"""Digits of which nearly half are labelled as their pair, and the accuracy of two losses on such labels."""

from __future__ import annotations

import pathlib

import torch
from fdiv_noisy.noise import corrupt, preset
from robustvision_core.data import load

from benchmarks.drawing import Drawing
from scripts.pictures import sheet as page

NAMES = {"CE": "cross-entropy", "auto": "loss found from the labels"}
COLUMN = "r0_2"


def write(folder: pathlib.Path = page.FOLDER) -> None:
    """Draw built-in digits and the measured accuracies."""
    train = load("digits", "train")
    noisy = corrupt(train.labels, preset("sparse-high", "mnist"), generator=torch.Generator().manual_seed(17))
    rows = {row["method"]: row for row in page.results("fdiv_noisy", "noise_table")["rows"]}
    (column,) = (name for name in rows["CE"] if name.startswith(COLUMN) and "wrong" in name)
    wrong = float(column.split("(")[1].split("%")[0])
    found = {method: float(rows[method][column].split()[0]) for method in NAMES}

    def draw(sheet: Drawing) -> None:
        digits(sheet, train, noisy)
        looks = zip(found.items(), (sheet.palette.series[1], sheet.palette.main), strict=True)
        bars = [(NAMES[method], value, f"{value:.0f} %", look) for (method, value), look in looks]
        page.bars(sheet, f"MNIST, {wrong:.0f} % of the labels wrong", bars, 100)

    said = ", ".join(f"{value:.0f} % with {NAMES[method]}" for method, value in found.items())
    page.write("fdiv_noisy", f"Accuracy with {wrong:.0f} % wrong labels: {said}", draw, folder)


def digits(sheet: Drawing, train, noisy: torch.Tensor) -> None:
    """Twelve digits, each with its label as given."""
    look = sheet.palette
    sheet.text((0, 22), "labels as given; those in red are wrong", 13, colour=look.faint)
    for place in range(12):
        left, top = 76 * (place % 6), 36 + 92 * (place // 6)
        sheet.pixels((left, top), 60, page.inked(train.images[place, 0].float() / 255, look))
        right = bool(noisy[place] == train.labels[place])
        said = f"{int(noisy[place])}" if right else f"{int(noisy[place])} \u2717"
        sheet.text((left + 30, top + 78), said, 15, "middle", look.ink if right else look.wrong, bold=not right)


if __name__ == "__main__":
    page.main(write)
