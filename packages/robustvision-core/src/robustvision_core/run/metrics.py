"""What a classifier gets right, counted on the device over the samples that this process sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from robustvision_core.run.runtime import Runtime, to_device


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[Any], runtime: Runtime) -> Tensor:
    """The logits (N, K), float32, of every batch in order, in evaluation mode; the model's mode is restored."""
    training = model.training
    model.eval()
    try:
        logits = []
        for batch in batches:
            with runtime.autocast():
                logits.append(model(to_device(batch.images, runtime.device)).float())
        return torch.cat(logits)
    finally:
        model.train(training)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K) int64 of label i predicted as j, from `predictions` and `labels` (N,) int64."""
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(confusion: Tensor) -> float:
    """Share of the counts (K, K) on the diagonal, in [0, 1]."""
    return float(confusion.diag().sum() / confusion.sum().clamp_min(1))


def recalls(confusion: Tensor) -> Tensor:
    """Share (K,) of each class's samples that are predicted right, in [0, 1]; 0 for a class without samples."""
    return confusion.diag() / confusion.sum(1).clamp_min(1)
