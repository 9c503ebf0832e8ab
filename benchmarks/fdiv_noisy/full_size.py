"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

from typing import Any

import torch
from fdiv_noisy import FDivergenceLoss
from fdiv_noisy.networks import build

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs on photos take on one core?"
RUNS = (
    ("CIFAR-10, PreAct ResNet-18", "preact_resnet18", 32, 10, 50_000, 16, 100),
    ("CIFAR-100, PreAct ResNet-18", "preact_resnet18", 32, 100, 50_000, 16, 220),
    ("Clothing1M, ResNet-50", "resnet50", 224, 14, 1_000_000, 2, 40),
)


def main() -> None:
    """Measure a step of each."""
    note = "a step with total variation, product exact, on random images; images and epochs are the paper's"
    save(__file__, QUESTION, [_row(*run) for run in RUNS], note=note)


def _row(what: str, name: str, side: int, classes: int, images: int, batch: int, epochs: int) -> dict[str, Any]:
    network = build(name, 3, side, classes)
    x, labels = torch.randn(batch, 3, side, side), torch.randint(classes, (batch,))
    criterion = FDivergenceLoss("tv", product="exact", prior=torch.full((classes,), 1 / classes))
    return row(what, training(lambda: criterion(network(x), labels), network), images, batch, epochs)
