"""The classifier of a run, and how it is tested: what training and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core.data import DeviceBatches, FileBatches, ImageFiles, channel_stats
from robustvision_core.errors import UserError
from robustvision_core.networks.external import build_external
from robustvision_core.networks.names import is_external
from robustvision_core.run.folder import load_part
from robustvision_core.run.metrics import accuracy, confusion_matrix, predict, recalls
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from fdiv_noisy.cli.data import Images, NoisySet
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.networks import build

DEAD = 0.05  # recall under which a class counts as never picked up


@dataclass(frozen=True)
class Classifier:
    """A network and how its images are normalised.

    Attributes:
        network: Normalised images to logits.
        mean: (C,) of each channel on the scale 0..1.
        std: (C,).
        said: What should be known of its starting weights, or nothing.
    """

    network: nn.Module
    mean: Tensor
    std: Tensor
    said: str = ""


def make_classifier(config: TrainConfig, data: Images) -> Classifier:
    """The classifier of `config` for the images of `data`, with the weights of `init` if that is named.

    Its normalisation is that of the training set, or that which its `weights` were trained with.
    """
    shape = image_shape(config, data)
    if config.weights:
        external = build_external(config.network, shape[0], shape[1], len(data.classes), config.weights)
        mean, std = torch.tensor(external.mean), torch.tensor(external.std)
        made = Classifier(external.network, mean, std, external.said)
    else:
        made = Classifier(new_network(config.network, *shape, len(data.classes)), *statistics(config, data))
    if config.init:
        load_part(made.network, config.init)
    return made


def make_network(config: TrainConfig, data: Images) -> nn.Module:
    """The network of `make_classifier`."""
    return make_classifier(config, data).network


def image_shape(config: TrainConfig, data: Images) -> tuple[int, int]:
    """Channels and side of the square images that a network of `config` takes."""
    side = config.image_size
    channels, height, width = (3, side, side) if isinstance(data, ImageFiles) else data.shape
    if height != width:
        raise UserError(f"{config.data} has images of {height}x{width} pixels: the networks take square ones")
    return channels, height


def new_network(name: str, channels: int, side: int, num_classes: int) -> nn.Module:
    """An untrained network of ours, timm's or torchvision's.

    Raises:
        UserError: There is none of that name, or it does not take such images.
    """
    if is_external(name):
        return build_external(name, channels, side, num_classes).network
    try:
        return build(name, channels, side, num_classes)
    except ValueError as error:
        raise UserError(str(error)) from error


def statistics(config: TrainConfig, data: Images) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of the training images, on the scale 0..1."""
    if not isinstance(data, ImageFiles):
        return channel_stats(data)
    like = FileBatches(data, config.batch_size, image_size=config.image_size)
    return like.mean, like.std


def confusion_on_test(config: TrainConfig, classifier: Classifier, noisy: NoisySet, runtime: Runtime) -> Tensor:
    """Counts (K, K) of true and predicted classes over the test set."""
    batches = ordered_batches(config, noisy.test, classifier, runtime)
    predicted = predict(classifier.network, batches.epoch(0), runtime).argmax(1).cpu()
    return confusion_matrix(predicted, noisy.test.labels, noisy.num_classes)


def ordered_batches(
    config: TrainConfig, images: Images, classifier: Classifier, runtime: Runtime
) -> DeviceBatches | FileBatches:
    """All images in order, for testing."""
    mean, std = classifier.mean, classifier.std
    if isinstance(images, ImageFiles):
        size = config.image_size
        return FileBatches(images, config.batch_size, image_size=size, mean=mean, std=std, device=runtime.device)
    return DeviceBatches(images, 1000, mean=mean, std=std, device=runtime.device)


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, recall of each class, and the classes that were never picked up."""
    recall = dict(zip(classes, recalls(confusion).tolist(), strict=True))
    dead = [name for name, value in recall.items() if value < DEAD]
    return {"accuracy": accuracy(confusion), "recall": recall, "dead_classes": dead}
