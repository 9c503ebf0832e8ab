"""Table 1, MNIST and Fashion-MNIST: the flow beside Augerino and no augmentation, at the size of a processor."""

from __future__ import annotations

from flowaug.cli.measures import measure
from flowaug.cli.recipes import TrainConfig

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.flowaug._cells import cells

QUESTION = "Does the flow beat no augmentation and Augerino on MNIST and Fashion-MNIST?"
LONG = True
SEEDS = [0, 1]
SIZE, EPOCHS, BATCH = 3_000, 6, 32
AUGMENTERS = ["none", "augerino", "flow"]
PAPER = {
    "mnist": {"none": 99.1, "augerino": 98.3, "flow": 99.2},
    "fashion-mnist": {"none": 89.6, "augerino": 90.1, "flow": 92.3},
}
"""Table 1 of Singhal et al. 2023: all 60,000 images, 100 and 200 epochs, 20 views."""


def config_of(data: str, augmenter: str, seed: int) -> TrainConfig:
    """The recipe of the data set on its first images; every augmenter has the same epochs, network and rate."""
    changes = {
        "train_size": SIZE,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "views": 2,
        "device": "cpu",
        "progress": False,
    }
    return TrainConfig.PRESETS[data].changed(augmenter=augmenter, seed=seed, **changes)


def main() -> None:
    """Train every cell and write the table."""
    if data_root() is None:
        return
    wanted = [(data, augmenter, seed) for data in PAPER for augmenter in AUGMENTERS for seed in SEEDS]
    results = {}
    for names, cell in zip(wanted, cells([config_of(*names) for names in wanted]), strict=True):
        results[names] = measure(cell.config, cell.model, cell.sets.test, cell.runtime) | cell.summary()
    rows = []
    for data in PAPER:
        for augmenter in AUGMENTERS:
            found = [results[data, augmenter, seed] for seed in SEEDS]
            rows.append(
                {
                    "data": data,
                    "augmenter": augmenter,
                    "accuracy (%)": mean_and_spread([100 * one["accuracy"] for one in found]),
                    "classifier alone (%)": mean_and_spread([100 * one["plain_accuracy"] for one in found]),
                    "paper, full size": PAPER[data][augmenter],
                    "seconds": round(sum(one["seconds"] for one in found) / len(found)),
                }
            )
    note = (
        f"first {SIZE} training images, {EPOCHS} epochs, batches of {BATCH}, 10,000 test images; nothing selected on "
        "test data"
    )
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=list(results.values()))


if __name__ == "__main__":
    main()
