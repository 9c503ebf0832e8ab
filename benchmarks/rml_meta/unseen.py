"""Transforms that no method has seen in training: RML against MAML on the same environments and on plain images."""

from __future__ import annotations

from typing import Any

from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.scoring import accuracy_on
from rml_meta.methods import FewShotMethod
from robustvision_core.run.runtime import Runtime

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.rml_meta._cells import cell, measured
from benchmarks.rml_meta.omniglot import BASE

QUESTION = "Does RML hold better than MAML under transforms that were never seen in training?"
LONG = True
SEEDS = (0, 1, 2)
SEEN = "identity,jitter"
UNSEEN = ("invert", "blur", "noise", "contrast", "texture", "rotate90")
METHODS = {
    "MAML, plain images": {"method": "maml", "environments": "none"},
    "MAML, the same environments": {"method": "maml", "environments": SEEN},
    "RML": {"method": "rml", "environments": SEEN},
}


def config_of(name: str, seed: int) -> TrainConfig:
    """The settings of one cell."""
    return BASE.changed(seed=seed, lr=3e-3, epochs=10, steps=100, test_episodes=300, **METHODS[name])


def under_transforms(
    config: TrainConfig, split: ClassSplit, method: FewShotMethod, runtime: Runtime
) -> dict[str, float]:
    """Accuracy on novel characters, support and query images through one transform."""
    found = {}
    for look in ("identity", *UNSEEN):
        tasks = held_out_tasks(config.changed(test_environments=look), split, "novel", runtime, correlations=())
        found[look] = accuracy_on(method, tasks, runtime).mean
    return found


def main() -> None:
    """Train and test every cell, and write the table after each method."""
    if data_root() is None:
        return
    cells: list[dict[str, Any]] = []
    for name in METHODS:
        for seed in SEEDS:
            config = config_of(name, seed)
            seconds = cell(config)["cpu_seconds"]
            found = measured(config, "under_transforms", under_transforms)
            shown = {look: 100 * value for look, value in found.items()}
            cells.append({"method": name, "seed": seed, **shown, "cpu_seconds": seconds})
        table(cells)


def table(cells: list[dict[str, Any]]) -> None:
    """Write what there is."""
    rows = []
    for name in METHODS:
        own = [one for one in cells if one["method"] == name]
        if own:
            looks = ("identity", *UNSEEN)
            rows.append({"method": name} | {look: mean_and_spread([one[look] for one in own]) for look in looks})
    note = (
        "accuracy (%) on novel Omniglot characters, 5 ways, 1 shot, mean and standard deviation over three seeds, 300 "
        "tasks each; support and query images go through the transform; trained for 1,000 steps of 4 tasks, the two "
        "environments of training are the images as they are and with jittered brightness"
    )
    save(__file__, QUESTION, rows, note=note, seeds=list(SEEDS), cells=cells)


if __name__ == "__main__":
    main()
