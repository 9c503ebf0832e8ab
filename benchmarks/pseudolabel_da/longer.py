"""Twice the epochs and images standardised one by one: the most that was reached, and the same on other shifts."""

from __future__ import annotations

import json
from typing import Any

from pseudolabel_da.cli.recipes import TrainConfig

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.pseudolabel_da._cells import folder_of, row, run_cell, slim
from benchmarks.pseudolabel_da._objects import WHERE, folders
from benchmarks.pseudolabel_da.shifts import FASHION

QUESTION = "What do twice the epochs and standardised images add to the recipe, on MNIST-M and, unchanged, elsewhere?"
LONG = True
BALANCED = TrainConfig.PRESETS["balanced"]
SMALL = BALANCED.changed(protocol="disjoint", pretrain=20, batch_size=32)
DIGITS = SMALL.changed(data="digits-shift")
PHOTOS = SMALL.changed(data=f"folder:{WHERE}:drawn:photos", image_size=32)
LONGER = {"epochs": 20, "period": 4, "standardise": True}
# data, seeds of the longer recipe and of the usual one, and what both share: the first phase must learn the source,
# which small sets need more epochs for; `headline` has the usual recipe on all of MNIST-M
CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], TrainConfig]] = [
    ("digits-shift, 613 images a domain", (0, 1, 2), (0, 1, 2), DIGITS),
    ("eight objects, drawn to photos, 32 pixels", (0, 1, 2), (0, 1, 2), PHOTOS),
    ("Fashion-MNIST to its photo blend, 6,000 images a domain", (0, 1, 2), (0, 1, 2), FASHION),
    ("MNIST to MNIST-M, 54,000 images a domain", (0, 1, 2), (), BALANCED),
]


def main() -> None:
    """Run every cell, and write the table after each row."""
    if data_root() is None:
        return
    folders()
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    for name, longer, usual, config in CASES:
        for what, seeds, changed in (("longer", longer, config.changed(**LONGER)), ("recipe", usual, config)):
            if seeds:
                found = [run_cell(changed.changed(seed=seed)) for seed in seeds]
                rows.append({"data": name} | row(what, found) | more(found))
                cells += [cell | {"row": what, "data": name} for cell in found]
                write(rows, cells)


def more(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Further columns of a row."""
    start = mean_and_spread([100 * cell["start"] for cell in found])
    return {"before adaptation (%)": start, "seeds": len(found), "minutes of a seed": minutes(found[0])}


def write(rows: list[dict[str, Any]], cells: list[dict[str, Any]]) -> None:
    """The table of the rows that are finished."""
    note = (
        "accuracy (%) at the last epoch on the target's test set, mean and standard deviation over seeds, no target "
        "label; longer has 20 epochs with a period of 4 in place of 10 with 2, and every image brought to mean 0 and "
        "standard deviation 1; minutes of one thread of a busy machine"
    )
    kept = [
        {"row": cell["row"], "data": cell["data"], "seed": cell["seed"]} | small
        for cell, small in zip(cells, slim(cells), strict=True)
    ]
    save(__file__, QUESTION, rows, note=note, cells=kept)


def minutes(cell: dict[str, Any]) -> float:
    """How long a cell trained, all of its sessions together."""
    config = TrainConfig().changed(**{name: value for name, value in cell["config"].items() if name != "preset"})
    lines = (folder_of(config) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return round(sum(json.loads(line)["seconds"] for line in lines) / 60, 1)


if __name__ == "__main__":
    main()
