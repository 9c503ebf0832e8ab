"""`fdiv-noisy evaluate`: a trained classifier on clean labels."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustvision_core.data import DeviceBatches, FileBatches, ImageFiles, channel_stats
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.metrics import accuracy, confusion_matrix, predict, recalls
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from fdiv_noisy.cli import plots
from fdiv_noisy.cli.data import Images, NoisySet, load
from fdiv_noisy.cli.recipes import TrainConfig

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
    download: bool = False
    """Fetch missing data where that can be done."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Write the confusion matrix as a picture here."""


def evaluate(config: EvaluateConfig) -> None:
    """Print accuracy and recall of each class."""
    from fdiv_noisy.cli.train import make_network

    stored = read_config(config.run, TrainConfig, "fdiv-noisy train")
    here = {"data_root": config.data_root, "device": config.device, "download": config.download, "resume": False}
    trained = replace(stored, noise="none", init="", **here)
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        noisy = load(trained)
        network = make_network(trained, noisy.train).to(runtime.device)
        load_part(network, pathlib.Path(config.run) / f"{config.which}.pt")
        found = confusion_on_test(trained, network, noisy, runtime)
    summary = summarise(found, noisy.test.classes)
    lines = [f"{name:<16} {100 * value:6.2f} %" for name, value in summary["recall"].items()]
    sys.stdout.write("\n".join(["recall", *lines, f"{'accuracy':<16} {100 * summary['accuracy']:6.2f} %"]) + "\n")
    if config.out:
        plots.confusion(found, noisy.test.classes, config.out, summary["accuracy"])


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
