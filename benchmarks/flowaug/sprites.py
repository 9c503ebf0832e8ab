"""Figures 2 and 3: rotated sprites whose invariance is known, with our flow and with Augerino."""

from __future__ import annotations

import math
from typing import Any

import torch
from flowaug.cli.align import align_set, spreads
from flowaug.cli.measures import measure
from flowaug.cli.options import AlignConfig
from flowaug.cli.recipes import TrainConfig
from flowaug.flows.circle import folded
from flowaug.metrics import invariance_width
from torch import Tensor

from benchmarks.common import mean_and_spread, save
from benchmarks.flowaug._cells import Cell, cells

QUESTION = "Are the learned rotations of sprites as wide and as many as the classes allow, and do images align by them?"
LONG = True
SEEDS = [0, 1]
CASES = [("sprites-45", "flow"), ("sprites-90", "flow"), ("sprites-3", "flow")]
RIVALS = [("sprites-45", "augerino"), ("sprites-90", "augerino")]
TRUTH = {"sprites-45": 90.0, "sprites-90": 90.0, "sprites-3": 30.0}
"""Half-width in degrees of the rotations about a mode that leave the class what it is."""


def config_of(preset: str, augmenter: str, seed: int) -> TrainConfig:
    """The recipe itself; Augerino starts from a range of 0.5 and keeps its own learning rate."""
    base = TrainConfig.PRESETS[preset].changed(augmenter=augmenter, seed=seed, device="cpu", progress=False)
    return base if augmenter == "flow" else base.changed(lr_aug=1e-2, freeze_after=0)


@torch.no_grad()
def directions(cell: Cell, n: int = 400) -> Tensor:
    """Where the views of the test images point (N, n), in radians clockwise from upright for the image's class."""
    test, augmenter = cell.sets.test, cell.model.augmenter
    generator = torch.Generator().manual_seed(cell.config.seed)
    w = augmenter.sample(test.images.float() / 255, n, generator)[0][..., augmenter.space.names.index("rot")]
    modes = cell.config.settled().images.modes or 1
    centre = (test.labels % 2) * (math.pi if modes % 2 else math.pi / modes)
    return folded((test.extras["angle"] - centre)[:, None] - math.pi * w)


def widths(cell: Cell) -> dict[str, Any]:
    """Widths about a mode, masses of the modes and how far the distributions follow their images, in degrees."""
    modes = cell.config.settled().images.modes or 1
    angles = directions(cell)
    within = folded(modes * angles) / modes
    mode = torch.round((angles - within) * modes / (2 * math.pi)).long() % modes
    low, high = torch.quantile(within.flatten(), torch.tensor([0.01, 0.99])).rad2deg().tolist()
    limit = math.radians(TRUTH[cell.config.preset])
    masses = torch.stack([(mode == k).float().mean(1) for k in range(modes)], 1)  # of every image
    middles = torch.atan2((modes * within).sin().mean(1), (modes * within).cos().mean(1)) / modes
    return {
        "half_width": (high - low) / 2,
        "inside_class": float((within.abs() <= limit).float().mean()),
        "masses": [round(float(mass), 3) for mass in masses.sort(1, descending=True).values.mean(0)],
        "middle_deviation": float(middles.rad2deg().std()),
    }


def result(cell: Cell) -> dict[str, Any]:
    """All that is measured of one training."""
    found = measure(cell.config, cell.model, cell.sets.test, cell.runtime) | widths(cell)
    images = cell.sets.test.images[:200].float() / 255
    generator = torch.Generator().manual_seed(cell.config.seed)
    found["turn"] = float(invariance_width(cell.model.augmenter, images, 400, generator=generator).median())
    options = AlignConfig(run="")
    some = cell.sets.test.take(torch.arange(200))
    before, after = align_set(options, cell.model.augmenter, some, cell.runtime)
    return found | spreads(some, before, after, cell.config.settled().images.modes or 1) | cell.summary()


def main() -> None:
    """Train every cell and write the table."""
    wanted = [(preset, augmenter, seed) for preset, augmenter in CASES + RIVALS for seed in SEEDS]
    trained = cells([config_of(*names) for names in wanted])
    results = {names: result(cell) for names, cell in zip(wanted, trained, strict=True)}
    rows = []
    for preset, augmenter in CASES + RIVALS:
        found = [results[preset, augmenter, seed] for seed in SEEDS]

        def over(key: str, scale: float = 1.0, found: list[dict[str, Any]] = found) -> str:
            return mean_and_spread([scale * one[key] for one in found])

        rows.append(
            {
                "preset": preset,
                "augmenter": augmenter,
                "accuracy (%)": over("accuracy", 100),
                "half-width of the rotations (degrees)": over("turn"),
                "of where views point": over("half_width"),
                "truth": TRUTH[preset],
                "inside the class (%)": over("inside_class", 100),
                "masses of an image's modes, largest first": "; ".join(
                    ", ".join(f"{mass:.2f}" for mass in one["masses"]) for one in found
                ),
                "entropy (nats)": over("entropy"),
                "spread before (degrees)": over("degrees_before"),
                # the mean of several modes is none of them: mean-shift is for one
                "spread after alignment": over("degrees_after") if preset != "sprites-3" else "",
                "seconds": round(sum(one["seconds"] for one in found) / len(found)),
            }
        )
    note = (
        "half-width: half the distance of the 1 % and 99 % quantiles of where views point, pooled over 600 test images"
    )
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=list(results.values()))


if __name__ == "__main__":
    main()
