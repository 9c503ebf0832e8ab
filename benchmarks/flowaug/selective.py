"""Figure 6: of the digits 0, 1, 5, 6 and 9 only 6 and 9 may not be rotated all the way round."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import torch
from flowaug.cli.measures import median_by_class
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import invariance_width
from robustvision_core.run import plots
from torch import Tensor

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.flowaug._cells import Cell, cell

QUESTION = "Do 0, 1 and 5 learn rotations near the full circle, and 6 and 9 near the half?"
LONG = True
SEEDS = [0, 1, 2]
SIDES = [14, 28]
TEST, SAMPLES, BINS = 1_000, 500, 36
PAPER = {"0": 180.0, "1": 180.0, "5": 180.0, "6": 90.0, "9": 90.0}
"""Half-widths in degrees that figure 6 is near, of its scale from 0 to 1."""


@torch.no_grad()
def result(done: Cell) -> dict[str, Any]:
    """Median half-width by class, in degrees (a full circle reads 176), and how often each direction is drawn."""
    test, augmenter = done.sets.test.take(torch.arange(TEST)), done.model.augmenter
    generator = torch.Generator().manual_seed(done.config.seed)
    parts = (test.images.float() / 255).split(250)
    widths = torch.cat([invariance_width(augmenter, part, SAMPLES, generator=generator) for part in parts])
    drawn = torch.cat([augmenter.sample(part, SAMPLES, generator)[0][..., 0] for part in parts])
    by_class = median_by_class(widths, test.labels, test.num_classes).tolist()
    shares = [shares_of(drawn[test.labels == c]) for c in range(test.num_classes)]
    accuracy = torch.cat([done.model.predict(part, 20, generator=generator) for part in parts]).argmax(1) == test.labels
    return {
        "side": done.config.images.size,
        "seed": done.config.seed,
        "accuracy": float(accuracy.float().mean()),
        "widths": dict(zip(test.classes, by_class, strict=True)),
        "shares": dict(zip(test.classes, shares, strict=True)),
    } | done.summary()


def shares_of(w: Tensor) -> list[float]:
    """Shares of the circle's equal parts among rotations in half circles, counter-clockwise from -180 degrees."""
    counts = torch.histc(w.clamp(-1, 1 - 1e-6), BINS, -1, 1)
    return [round(share, 5) for share in (counts / counts.sum()).tolist()]


def draw(found: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Polar histograms of the rotations of each digit, one row a size of images, one line a seed."""
    drawn, _ = plots.figure(2 * len(PAPER), 2.3 * len(SIDES))
    drawn.clear()
    angles = [2 * math.pi * (k + 0.5) / BINS - math.pi for k in range(BINS + 1)]
    for place, (side, name) in enumerate((side, name) for side in SIDES for name in PAPER):
        axes: Any = drawn.add_subplot(len(SIDES), len(PAPER), place + 1, projection="polar")
        for one in (one for one in found if one["side"] == side):
            shares = one["shares"][name]
            axes.plot(angles, [*shares, shares[0]], linewidth=1)
        axes.set_theta_zero_location("N")
        axes.set_rmin(0)
        axes.set_yticklabels([])
        axes.tick_params(labelsize=5)
        axes.set_title(f"{name}, {side} pixels", fontsize=8)
    drawn.suptitle("learned rotations of the digits' test images, one line a seed", fontsize=9)
    plots.save(drawn, path)


def main() -> None:
    """Train every cell and write the table."""
    if data_root() is None:
        return
    base = TrainConfig.PRESETS["mnist-01569"].settled().changed(device="cpu", progress=False)
    wanted = [(side, seed) for side in SIDES for seed in SEEDS]
    found = [result(cell(base.changed(image_size=side, seed=seed))) for side, seed in wanted]
    rows = []
    for side in SIDES:
        here = [one for one in found if one["side"] == side]
        widths = {name: mean_and_spread([one["widths"][name] for one in here]) for name in PAPER}
        accuracy = mean_and_spread([100 * one["accuracy"] for one in here])
        seconds = round(sum(one["seconds"] for one in here) / len(here))
        rows.append({"side (pixels)": side, **widths, "accuracy (%)": accuracy, "seconds": seconds})
    rows.append({"side (pixels)": "paper, about", **PAPER, "accuracy (%)": "", "seconds": ""})
    note = (
        f"median half-width in degrees over {TEST} test images, 176 is the whole circle; all training images of the "
        f"five digits, {base.epochs} epochs, batches of {base.batch_size}, alpha {base.objective.alpha}, last epoch"
    )
    path = save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=found)
    draw(found, pathlib.Path(path).with_suffix(".png"))


if __name__ == "__main__":
    main()
