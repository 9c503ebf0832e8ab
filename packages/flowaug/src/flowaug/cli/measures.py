"""What training and evaluation both measure: predictions, accuracy, entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from robustvision_core.data import DeviceBatches, ImageSet
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from flowaug.baselines import LocationRelationAugmenter
from flowaug.classifier import AugmentedClassifier
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import Predict

BATCH = 250
ENTROPY_SAMPLES = 20  # of each of the test images


def predictor(config: TrainConfig, model: AugmentedClassifier, runtime: Runtime, align: int = 0) -> Predict:
    """Images (B, C, H, W) on any device to class probabilities (B, K), with transforms of a seed of their own.

    A fixed augmenter is for training alone; InstaAug's crops are the likeliest ones, as published. With `align` the
    images take so many steps of mean-shift first.
    """
    options = {"steps": align} if align else None
    generator = torch.Generator(runtime.device).manual_seed(derive_seed(config.seed, "test views"))

    @torch.no_grad()
    def predict(images: Tensor) -> Tensor:
        images = images.to(runtime.device)
        with runtime.autocast():
            if not config.learns:
                return model.classifier(images).float().softmax(-1)
            if isinstance(model.augmenter, LocationRelationAugmenter):
                chosen = model.augmenter.most_likely(images, model.n_test)
                return model.logits(model.augmenter.warp(images, chosen)).float().softmax(-1).mean(1)
            return model.predict(images, align=options, generator=generator)

    return predict


def ordered_batches(data: ImageSet, runtime: Runtime) -> DeviceBatches:
    """All images in order, in [0, 1]."""
    return DeviceBatches(data, BATCH, mean=0.0, std=1.0, device=runtime.device)


@torch.no_grad()
def share_right(predict: Callable[[Tensor], Tensor], batches: DeviceBatches) -> float:
    """Accuracy over all batches, in [0, 1]."""
    hits = [(predict(batch.images).argmax(-1) == batch.labels).sum() for batch in batches.epoch(0)]
    return float(torch.stack(hits).sum()) / len(batches.data)


def accuracy(config: TrainConfig, model: AugmentedClassifier, batches: DeviceBatches, runtime: Runtime) -> float:
    """Accuracy of the augmented prediction."""
    return share_right(predictor(config, model, runtime), batches)


@torch.no_grad()
def measure(config: TrainConfig, model: AugmentedClassifier, data: ImageSet, runtime: Runtime) -> dict[str, Any]:
    """Accuracy with augmented views and of the classifier alone, and the augmenter's entropy in nats."""
    model.eval()
    batches = ordered_batches(data, runtime)
    found: dict[str, Any] = {
        "accuracy": accuracy(config, model, batches, runtime),
        "plain_accuracy": share_right(model.classifier, batches),
    }
    if config.learns:
        generator = torch.Generator(runtime.device).manual_seed(derive_seed(config.seed, "test entropy"))
        values = over(batches, lambda images: model.augmenter.entropy(images, ENTROPY_SAMPLES, generator))
        found["entropy"] = float(values.mean())
    return found


def over(batches: DeviceBatches, measured: Callable[[Tensor], Tensor]) -> Tensor:
    """A measure of images, of all batches one after another."""
    return torch.cat([measured(batch.images) for batch in batches.epoch(0)])


def median_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Medians (K,) of values (N,) within every class; NaN for a class without any."""
    parts = [values[labels == c] for c in range(num_classes)]
    return torch.stack([part.median() if len(part) else values.new_tensor(torch.nan) for part in parts])
