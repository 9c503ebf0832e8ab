"""Figure 1 of Wei and Liu 2021: accuracy and divergence against the rate of uniform noise."""

from __future__ import annotations

import pathlib
from dataclasses import replace

from fdiv_noisy.cli.recipes import TrainConfig
from robustvision_core.run import plots

from benchmarks.common import data_root, save
from benchmarks.fdiv_noisy._cells import run_cells

QUESTION = "How does accuracy fall as the rate of uniform noise grows?"
RATES = [0.0, 0.18, 0.36, 0.54, 0.72, 0.81]
LOSSES = ["ce", "tv", "js", "pearson"]
SEEDS = [0, 1]


def base() -> TrainConfig:
    """MNIST where it is, else scikit-learn's digits."""
    if data_root() is None:
        return replace(TrainConfig.PRESETS["quick"], epochs=15, progress=False)
    return replace(TrainConfig.PRESETS["mnist"], train_size=3_000, epochs=10, progress=False)


def main() -> None:
    """Run every cell, write the table and draw the curve."""
    start = base()
    cells = [(loss, rate, seed) for loss in LOSSES for rate in RATES for seed in SEEDS]
    configs = [replace(start, loss=loss, noise=f"uniform:{rate}", seed=seed) for loss, rate, seed in cells]
    results = dict(zip(cells, run_cells(configs), strict=True))
    accuracy = {
        (loss, rate): sum(100 * results[loss, rate, seed]["accuracy"] for seed in SEEDS) / len(SEEDS)
        for loss in LOSSES
        for rate in RATES
    }
    rows = [{"wrong labels": rate} | {loss: round(accuracy[loss, rate], 2) for loss in LOSSES} for rate in RATES]
    path = save(
        __file__, QUESTION, rows, data=start.data, train_size=start.train_size, epochs=start.epochs, seeds=SEEDS
    )
    series = {loss: (RATES, [accuracy[loss, rate] for rate in RATES]) for loss in LOSSES}
    title = f"{start.data}, uniform noise, mean of {len(SEEDS)} seeds"
    plots.curves(
        series, pathlib.Path(path).with_suffix(".png"), xlabel="share of wrong labels", ylabel="%", title=title
    )


if __name__ == "__main__":
    main()
