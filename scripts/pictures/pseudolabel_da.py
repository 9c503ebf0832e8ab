"""Digits on black and on coloured grounds, and the accuracy on the second before and after adapting."""

from __future__ import annotations

import pathlib
import statistics

from robustvision_core.data import load_domains
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.drawing import Drawing
from scripts.pictures import sheet as page

SHOWN = 7


def write(folder: pathlib.Path = page.FOLDER) -> None:
    """Draw images of the built-in pair and the measured accuracies."""
    pair = load_domains("digits-shift")
    rows = [small(pair.source_train.images), small(pair.target_train.images)]
    cells = page.results("pseudolabel_da", "headline")["cells"]
    before = 100 * statistics.mean(cell["start"] for cell in cells)
    after = 100 * statistics.mean(cell["target"]["accuracy"] for cell in cells)

    def draw(sheet: Drawing) -> None:
        domains(sheet, rows)
        look = sheet.palette
        bars = [("before", before, f"{before:.0f} %", look.series[1]), ("after", after, f"{after:.0f} %", look.main)]
        page.bars(sheet, "MNIST to MNIST-M, no target label", bars, 100)

    page.write("pseudolabel_da", f"Accuracy on a new domain, {before:.0f} % before, {after:.0f} % after", draw, folder)


def small(images: Tensor) -> Tensor:
    """Some images at half their size, in [0, 1]."""
    return avg_pool2d(images[:SHOWN].float() / 255, 2)


def domains(sheet: Drawing, rows: list[Tensor]) -> None:
    """A row of images a domain."""
    for row, (images, said) in enumerate(zip(rows, ("source: labelled", "target: no labels"), strict=True)):
        top = 22 + 102 * row
        sheet.text((0, top), said, 13, colour=sheet.palette.faint)
        for place, image in enumerate(images):
            sheet.pixels((65 * place, top + 10), 60, page.coloured(image))


if __name__ == "__main__":
    page.main(write)
