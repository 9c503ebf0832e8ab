"""`fdiv-noisy evaluate`: a trained classifier on clean labels."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from robustvision_core.data import DeviceBatches, FileBatches, ImageFiles, channel_stats
from robustvision_core.errors import UserError
from robustvision_core.metrics import accuracy, confusion_matrix, predict, recalls
from robustvision_core.runtime import Runtime
from torch import Tensor, nn

from fdiv_noisy import plots
from fdiv_noisy.noisy_set import Images, NoisySet, load
from fdiv_noisy.recipes import TrainConfig

DEAD = 0.05  # recall under which a class counts as never picked up


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained classifier on the clean test set of its data."""

    run: str
    """Run folder that training wrote."""
    which: str = "checkpoint"
    """checkpoint (the last epoch) or best (the selected one)."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Write the confusion matrix as a picture here."""


def evaluate(config: EvaluateConfig) -> None:
    """Print accuracy and recall of each class."""
    from fdiv_noisy.train import load_network, make_network

    trained = replace(read_config(config.run), data_root=config.data_root, device=config.device, noise="none", init="")
    trained = replace(trained, resume=False)
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        noisy = load(trained)
        network = make_network(trained, noisy.train).to(runtime.device)
        load_network(network, pathlib.Path(config.run) / f"{config.which}.pt")
        found = confusion_on_test(trained, network, noisy, runtime)
    summary = summarise(found, noisy.test.classes)
    lines = [f"{name:<16} {100 * value:6.2f} %" for name, value in summary["recall"].items()]
    sys.stdout.write("\n".join(["recall", *lines, f"{'accuracy':<16} {100 * summary['accuracy']:6.2f} %"]) + "\n")
    if config.out:
        plots.confusion(found, noisy.test.classes, config.out, summary["accuracy"])


def read_config(folder: str) -> TrainConfig:
    """The configuration of a run folder.

    Raises:
        UserError: The folder holds no run of this package.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"no run in {folder}: expected a folder with config.json, as fdiv-noisy train writes")
    held = json.loads(path.read_text(encoding="utf-8"))
    if unknown := sorted(held.keys() - {field.name for field in fields(TrainConfig)}):
        raise UserError(f"{path} is not of fdiv-noisy train: it has {', '.join(unknown)}")
    held["lr_steps"] = tuple(tuple(step) for step in held["lr_steps"])
    return TrainConfig(**held)


def confusion_on_test(config: TrainConfig, network: nn.Module, noisy: NoisySet, runtime: Runtime) -> Tensor:
    """Counts (K, K) of true and predicted classes over the test set, normalised as the training set was."""
    if isinstance(noisy.train, ImageFiles):
        like = FileBatches(noisy.train, config.batch_size, image_size=config.image_size)
        mean, std = like.mean, like.std
    else:
        mean, std = channel_stats(noisy.train)
    batches = ordered_batches(config, noisy.test, mean, std, runtime)
    predicted = predict(network, batches.epoch(0), runtime).argmax(1).cpu()
    return confusion_matrix(predicted, noisy.test.labels, noisy.num_classes)


def ordered_batches(
    config: TrainConfig, images: Images, mean: Tensor, std: Tensor, runtime: Runtime
) -> DeviceBatches | FileBatches:
    """All images in order, for testing."""
    if isinstance(images, ImageFiles):
        size = config.image_size
        return FileBatches(images, config.batch_size, image_size=size, mean=mean, std=std, device=runtime.device)
    return DeviceBatches(images, 1000, mean=mean, std=std, device=runtime.device)


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, recall of each class, and the classes that were never picked up."""
    recall = dict(zip(classes, recalls(confusion).tolist(), strict=True))
    dead = [name for name, value in recall.items() if value < DEAD]
    return {"accuracy": accuracy(confusion), "recall": recall, "dead_classes": dead}
