"""The classifier of a run, and how it is tested: what training and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustvision_core.data import DeviceBatches, FileBatches, ImageFiles, channel_stats
from robustvision_core.errors import UserError
from robustvision_core.run.folder import load_part
from robustvision_core.run.metrics import accuracy, confusion_matrix, predict, recalls
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from fdiv_noisy.cli.data import Images, NoisySet
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.networks import build

DEAD = 0.05  # recall under which a class counts as never picked up


def make_network(config: TrainConfig, data: Images) -> nn.Module:
    """The network of `config`, with the weights of `init` if one is named."""
    side = config.image_size
    channels, height, width = (3, side, side) if isinstance(data, ImageFiles) else data.shape
    if height != width:
        raise UserError(f"{config.data} has images of {height}x{width} pixels: the networks take square ones")
    try:
        network = build(config.network, channels, height, len(data.classes))
    except ValueError as error:
        raise UserError(str(error)) from error
    if config.init:
        load_part(network, config.init)
    return network


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
