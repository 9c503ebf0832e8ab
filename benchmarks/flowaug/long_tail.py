"""Figure 4: expected divergence under rotation, by class size, on RotMNIST-LT."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
from flowaug.cli.measures import measure, predictor
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import by_class, expected_kl
from robustvision_core.run import plots

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.flowaug._cells import Cell, cells

QUESTION = "Is the divergence of predictions under rotation lower with the flow, down to the smallest classes?"
LONG = True
SEEDS = [0, 1]
AUGMENTERS = ["none", "augerino", "flow"]
SIZE, EPOCHS, BATCH, TEST = 3_000, 6, 32, 1_000


@torch.no_grad()
def result(cell: Cell) -> dict[str, Any]:
    """Accuracy, and expected divergence under rotations of up to 180 degrees by class."""
    test = cell.sets.test.take(torch.arange(TEST))
    predict = predictor(cell.config, cell.model, cell.runtime)
    generator = torch.Generator().manual_seed(cell.config.seed)
    parts = [expected_kl(predict, part, 180, generator=generator) for part in (test.images.float() / 255).split(250)]
    kl = by_class(torch.cat(parts), test.labels, test.num_classes)
    found = measure(cell.config, cell.model, test, cell.runtime)
    counts = cell.sets.train.class_counts().tolist()
    return found | {"samples": counts, "expected_kl": kl.tolist()} | cell.summary()


def main() -> None:
    """Train every cell, write the table and draw the curve."""
    if data_root() is None:
        return
    sizes = {"train_size": SIZE, "epochs": EPOCHS, "batch_size": BATCH, "views": 2}
    base = TrainConfig.PRESETS["rot-mnist-lt"].changed(**sizes, device="cpu", progress=False)
    wanted = [(augmenter, seed) for augmenter in AUGMENTERS for seed in SEEDS]
    trained = cells([base.changed(augmenter=augmenter, seed=seed) for augmenter, seed in wanted])
    results = {names: result(cell) for names, cell in zip(wanted, trained, strict=True)}
    rows, series = [], {}
    for augmenter in AUGMENTERS:
        found = [results[augmenter, seed] for seed in SEEDS]
        kl = torch.tensor([one["expected_kl"] for one in found])
        series[augmenter] = (found[0]["samples"], kl.mean(0).tolist())
        rows.append(
            {
                "augmenter": augmenter,
                "accuracy (%)": mean_and_spread([100 * one["accuracy"] for one in found]),
                "expected KL, three largest classes": mean_and_spread(kl[:, :3].mean(1).tolist()),
                "three smallest": mean_and_spread(kl[:, -3:].mean(1).tolist()),
                "all": mean_and_spread(kl.mean(1).tolist()),
                "seconds": round(sum(one["seconds"] for one in found) / len(found)),
            }
        )
    note = (
        f"{SIZE} images of RotMNIST-LT (rho 10), {EPOCHS} epochs, batches of {BATCH}; rotations of up to 180 degrees; "
        f"{TEST} test images"
    )
    path = save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=list(results.values()))
    label = "training samples of the class"
    plots.curves(series, pathlib.Path(path).with_suffix(".png"), xlabel=label, ylabel="expected KL, nats")


if __name__ == "__main__":
    main()
