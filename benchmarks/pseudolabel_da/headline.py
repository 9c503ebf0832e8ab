"""The recommended preset on all of MNIST and MNIST-M."""

from __future__ import annotations

from dataclasses import replace

from pseudolabel_da.recipes import TrainConfig

from benchmarks.common import data_root, save
from benchmarks.pseudolabel_da._cells import row, run_cell, slim

QUESTION = (
    "How far does `pseudolabel-da train --preset balanced` get on the full MNIST-M test set, without a target label?"
)
LONG = True
SEEDS = [0, 1]
RECIPE = TrainConfig.PRESETS["balanced"]


def main() -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    rows, cells = [], []
    for name, config, seeds in [
        ("canonical: the 54,000 training digits in both domains", RECIPE, SEEDS),
        ("disjoint: 27,000 digits of MNIST, 27,000 others of MNIST-M", replace(RECIPE, protocol="disjoint"), SEEDS[:1]),
    ]:
        found = [run_cell(replace(config, seed=seed)) for seed in seeds]
        start = "/".join(f"{100 * cell['start']:.1f}" for cell in found)
        rows.append(row(name, found) | {"before adaptation": start, "seeds": len(seeds)})
        cells += found
    note = "accuracy (%) at the last epoch, mean and standard deviation over seeds; one network of 29,578 parameters"
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=slim(cells))


if __name__ == "__main__":
    main()
