"""The recipe taken apart: one change a row, and the controls that any adaptation must beat."""

from __future__ import annotations

from pseudolabel_da.cli.recipes import TrainConfig

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.pseudolabel_da._cells import after, row, run_cell, slim, start_of

QUESTION = "Which step of the recipe is the one that adapts, and what do augmentation and target statistics do alone?"
LONG = True
SEEDS = [0, 1]
SIZE = 6000
RECIPE = TrainConfig.PRESETS["balanced"].changed(protocol="disjoint", source_size=SIZE, target_size=SIZE, pretrain=5)
PLAIN = RECIPE.changed(augment="none", relabel=False, label_smoothing=0.15, batch_norm="shared", passes="mixed")
ROWS = [
    ("recipe", RECIPE),
    ("paper's threshold instead of shares", RECIPE.changed(selector="adaptive")),
    ("paper's threshold, ceiling-aware, smoothing 0.05", RECIPE.changed(selector="adaptive", ceiling_aware=True,
                                                                 label_smoothing=0.05, relabel=False)),
    ("balanced shares alone (smoothing 0.15, no relabelling)", PLAIN),
    ("recipe without augmentation", RECIPE.changed(augment="none")),
    ("recipe with contrast and brightness alone", RECIPE.changed(augment="jitter")),
    ("recipe without target statistics, one forward", RECIPE.changed(batch_norm="shared", passes="mixed")),
    ("recipe without balance", RECIPE.changed(selector="top")),
    ("without balance and target statistics", RECIPE.changed(selector="top", batch_norm="shared", passes="mixed")),
    ("the same share of each predicted class", RECIPE.changed(prior="predicted")),
    ("FlexMatch's thresholds", RECIPE.changed(selector="flex")),
    ("recipe with label smoothing 0.15", RECIPE.changed(label_smoothing=0.15)),
    ("recipe without relabelling", RECIPE.changed(relabel=False)),
]  # fmt: skip
CONTROLS = [
    ("source only", RECIPE.changed(method="source", batch_norm="shared")),
    (
        "source only, inversion and jitter",
        RECIPE.changed(method="source", batch_norm="shared", source_augment="recolor"),
    ),
    (
        "source only, strong augmentation",
        RECIPE.changed(method="source", batch_norm="shared", source_augment="strong"),
    ),
]


def main() -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    rows, cells = [], []
    for name, config in CONTROLS:
        found = [run_cell(start_of(config.changed(seed=seed))) for seed in SEEDS]
        rows.append(row(name, found))
        statistics = mean_and_spread([100 * cell["target statistics"] for cell in found])
        rows.append(rows[-1] | {"row": f"{name} + target statistics", "target (%)": statistics, "source (%)": ""})
        cells += found
    for name, config in ROWS:
        found = [run_cell(after(config.changed(seed=seed))) for seed in SEEDS]
        rows.append(row(name, found))
        cells += found
    note = (
        f"accuracy (%) on the full MNIST-M test set at the last epoch, mean and standard deviation over seeds; {SIZE} "
        "source and as many target images, no digit in both; all rows of a seed share one start of 5 source epochs"
    )
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=slim(cells))


if __name__ == "__main__":
    main()
