"""Fashion-MNIST: which recipe of the flow closes the gap to no augmentation, chosen by validation images."""

from __future__ import annotations

import statistics
from typing import Any

from flowaug.cli.measures import accuracy, measure, ordered_batches
from flowaug.cli.recipes import TrainConfig

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.flowaug._cells import Cell, cell

QUESTION = "Does a recipe chosen by validation images close the flow's gap to no augmentation on Fashion-MNIST?"
LONG = True
SEEDS = [0, 1, 2]
SIZE, HELD, EPOCHS, BATCH = 3_000, 1_000, 6, 32
RECIPES: dict[str, dict[str, Any]] = {
    "none": {"augmenter": "none"},
    "flow, as in table 1": {},
    "flow, image itself among the views, alpha 0.003": {"include_original": True, "alpha": 0.003},
    "flow, tx, ty and scale up to 0.2": {"dims": ("tx", "ty", "scale"), "trans_scale": 0.2, "linear_scale": 0.2},
}


def config_of(recipe: str, seed: int) -> TrainConfig:
    """The recipe on the first images; the last ones of the training set are held out."""
    sizes = {"train_size": SIZE, "val_size": HELD, "epochs": EPOCHS, "batch_size": BATCH, "views": 2, "test_views": 8}
    base = TrainConfig.PRESETS["fashion-mnist"].changed(**sizes, seed=seed, device="cpu", progress=False)
    return base.changed(**RECIPES[recipe])


def result(recipe: str, done: Cell) -> dict[str, Any]:
    """Accuracy on the held-out and on the test images, at the last epoch."""
    assert done.sets.val is not None
    held = ordered_batches(done.sets.val, done.runtime)
    found = measure(done.config, done.model, done.sets.test, done.runtime)
    value = accuracy(done.config, done.model, held, done.runtime)
    return {"recipe": recipe, "seed": done.config.seed, "val_accuracy": value, **found, **done.summary()}


def main() -> None:
    """Train every cell, choose among the flow's recipes by the held-out images, and write the table."""
    if data_root() is None:
        return
    found = [result(recipe, cell(config_of(recipe, seed))) for recipe in RECIPES for seed in SEEDS]
    held = {recipe: [one["val_accuracy"] for one in found if one["recipe"] == recipe] for recipe in RECIPES}
    flows = [recipe for recipe in RECIPES if recipe.startswith("flow")]
    chosen = max(flows, key=lambda recipe: statistics.mean(held[recipe]))
    rows = []
    for recipe in RECIPES:
        here = [one for one in found if one["recipe"] == recipe]
        rows.append(
            {
                "recipe": recipe,
                "chosen": "yes" if recipe == chosen else "",
                "held-out accuracy (%)": mean_and_spread([100 * value for value in held[recipe]]),
                "test accuracy (%)": mean_and_spread([100 * one["accuracy"] for one in here]),
                "classifier alone (%)": mean_and_spread([100 * one["plain_accuracy"] for one in here]),
                "entropy (nats)": mean_and_spread([one.get("entropy", 0.0) for one in here]),
            }
        )
    note = (
        f"first {SIZE} training images, {EPOCHS} epochs of {BATCH}, 2 views in training and 8 in the test; chosen by "
        f"the mean over seeds on {HELD} held-out training images; 10,000 test images, last epoch"
    )
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, chosen=chosen, cells=found)


if __name__ == "__main__":
    main()
