"""What train and evaluate share: the network of a run, its confusions on both test sets, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from robustvision_core.data import ImageSet
from robustvision_core.errors import UserError
from robustvision_core.run.metrics import accuracy, confusion_matrix, recalls
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from pseudolabel_da.cli.classifier import Classifier, new_classifier
from pseudolabel_da.cli.data import AdaptationData
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.reading.reader import Reader, scale_images
from pseudolabel_da.reading.samples import TensorSamples


def make_classifier(config: TrainConfig, data: AdaptationData) -> Classifier:
    """The classifier of `config` for images and classes as in `data`, from the weights that it names."""
    channels, height, width = data.shape
    if height != width:
        raise UserError(f"{config.data} has images of {height}x{width} pixels: the networks take square ones")
    return new_classifier(config, channels, height, len(data.classes), config.weights)


def make_reader(network: nn.Module, runtime: Runtime) -> Reader:
    """How samples reach the network."""
    return Reader(network, runtime.device, torch.float32, scale_images, autocast=runtime.autocast_dtype)


def confusion_on(reader: Reader, test: ImageSet) -> Tensor:
    """Counts (K, K) of true and predicted classes over a test set, on the CPU."""
    predicted = reader.outputs(TensorSamples(test.images)).logits.argmax(1).cpu()
    return confusion_matrix(predicted, test.labels.cpu(), test.num_classes)


def confusions(data: AdaptationData, runtime: Runtime, network: nn.Module) -> dict[str, Tensor]:
    """Counts (K, K) over the test set of each domain that has labels."""
    reader = make_reader(network, runtime)
    return {domain: confusion_on(reader, test) for domain, test in data.tests.items()}


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, and recall of each class, of counts (K, K)."""
    return {"accuracy": accuracy(confusion), "recall": dict(zip(classes, recalls(confusion).tolist(), strict=True))}
