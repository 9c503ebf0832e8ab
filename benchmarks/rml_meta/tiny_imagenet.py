"""The nine methods on photos: Tiny ImageNet's classes that miniImageNet shares, in its split, and on characters."""

from __future__ import annotations

from typing import Any

from rml_meta.cli import class_split
from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.recipes import METHODS, TrainConfig
from rml_meta.cli.scoring import accuracy_on, summarise
from rml_meta.methods import FewShotMethod
from robustvision_core.run.runtime import Runtime

from benchmarks.common import data_root, save
from benchmarks.rml_meta._cells import cell, measured
from benchmarks.rml_meta.omniglot import percent

QUESTION = "How well do the nine methods learn photos of new classes, and characters after photos?"
LONG = True
SHOTS = (1, 5)
TARGET = "omniglot"
BASE = TrainConfig.PRESETS["tiny-imagenet"].changed(
    image_size=32,
    queries=5,
    epochs=10,
    lstm_steps=5,
    schedule="cosine",
    reptile_test_steps=10,
    val_episodes=50,
    progress=False,
)


def config_of(method: str, shots: int) -> TrainConfig:
    """The settings of one cell."""
    more: dict[str, Any] = {"schedule": "auto"} if method == "reptile" else {}
    if method == "metalstm":
        more["steps"] = 20
    return BASE.changed(method=method, shots=shots, **more)


def across(config: TrainConfig, split: ClassSplit, method: FewShotMethod, runtime: Runtime) -> dict[str, Any]:
    """Accuracy on the novel classes of the other set; the epoch is still chosen by validation classes of photos."""
    other = class_split.load(config.changed(target=TARGET))
    tasks = held_out_tasks(config, other, "novel", runtime, correlations=config.environments.correlations)
    return summarise(accuracy_on(method, tasks, runtime))


def run(method: str, shots: int) -> dict[str, Any]:
    """Both accuracies of one training."""
    config = config_of(method, shots)
    return cell(config) | {"across": measured(config, "across", across)}


def main() -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    table({(method, shots): run(method, shots) for shots in SHOTS for method in METHODS})


def table(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Write what there is."""
    rows = []
    for method in METHODS:
        row: dict[str, Any] = {"method": method}
        for name, key in (("Tiny ImageNet", "novel"), ("to Omniglot", "across")):
            for shots in SHOTS:
                found = results.get((method, shots))
                row[f"{name}, {shots}-shot (%)"] = "" if found is None else percent(found[key])
        rows.append(row)
    note = (
        "accuracy on novel classes with its 95 % interval over 600 tasks of 5 ways and 15 queries a class, the same "
        "for every method; 14 base, 6 validation and 5 novel classes of 550 photos at 32x32, so that every test task "
        "of photos has the same classes; to Omniglot: the same networks on 659 characters; Conv4 of 32 channels; "
        "1,000 steps of 4 tasks, of the baselines of 64 images, of metalstm 200 steps; one seed; empty: not run"
    )
    save(__file__, QUESTION, rows, note=note, seeds=[0], cells=[*results.values()])


if __name__ == "__main__":
    main()
