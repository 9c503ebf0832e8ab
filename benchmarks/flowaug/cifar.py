"""Table 1, CIFAR-10: the paper's own network for as many epochs as a processor allows."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import torch
from flowaug.cli.recipes import TrainConfig
from flowaug.cli.train import train
from robustvision_core.run.folder import read_metrics

from benchmarks.common import data_root, save

QUESTION = "How far do the flow, Augerino and no augmentation get on CIFAR-10 in a few epochs of the paper's network?"
LONG = True
EPOCHS, BURN_IN = 6, 2
AUGMENTERS = ["none", "augerino", "flow"]
PAPER = {"none": 74.1, "augerino": 79.0, "flow": 86.8}
"""Table 1 of Singhal et al. 2023: 200 epochs, 20 views in training and test."""
DONE = pathlib.Path("runs/benchmarks/flowaug")


def config_of(augmenter: str) -> TrainConfig:
    """The recipe `cifar10` with one view in training and five in the test, in the same epochs for all."""
    folder = DONE / f"cifar10-{augmenter}-{EPOCHS}"
    changes = {"epochs": EPOCHS, "burn_in": BURN_IN, "views": 1, "test_views": 5, "device": "cpu", "progress": False}
    config = TrainConfig.PRESETS["cifar10"].changed(augmenter=augmenter, out=str(folder), **changes)
    return config.changed(resume=(folder / "checkpoint.pt").exists())


def result(config: TrainConfig) -> dict[str, Any]:
    """The measures of a run, trained to its end first; a stopped one goes on where it was."""
    folder = pathlib.Path(config.out)
    if not (folder / "summary.json").exists():
        torch.set_num_threads(1)
        train(config)
    final, records = json.loads((folder / "summary.json").read_text())["final"], read_metrics(folder)
    seconds = sum(record["seconds"] for record in records)
    return {"augmenter": config.augmenter, "seed": config.seed, "epochs": EPOCHS, "seconds": seconds, **final}


def main() -> None:
    """Train every run and write the table of those that are finished."""
    if data_root() is None:
        return
    found = [result(config_of(augmenter)) for augmenter in AUGMENTERS]
    rows = [
        {
            "augmenter": one["augmenter"],
            "epochs": one["epochs"],
            "accuracy (%)": 100 * one["accuracy"],
            "classifier alone (%)": 100 * one["plain_accuracy"],
            "paper, 200 epochs": PAPER[one["augmenter"]],
            "seconds an epoch": round(one["seconds"] / one["epochs"]),
        }
        for one in found
    ]
    note = (
        f"CIFAR-10 from lossy JPEGs, all 50,000 images, Fixup ResNet of 75 thousand weights, {EPOCHS} epochs of 256, "
        f"the first {BURN_IN} without augmentation, one view in training and 5 in the test (paper: 20 and 20), one "
        "seed, last epoch, 10,000 test images"
    )
    save(__file__, QUESTION, rows, note=note, cells=found)


if __name__ == "__main__":
    main()
