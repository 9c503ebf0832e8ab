"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

from typing import Any

import torch
from pseudolabel_da.networks import build

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs with ResNet-18 take on one core?"
# run: side, classes, images of the measured step, images an epoch, epochs
RUNS = {
    "Office-31, ResNet-18": (224, 31, 2, 2817, 170),
    "MNIST to MNIST-M, ResNet-18 at 32 pixels": (32, 10, 16, 6000, 25),
}


def main() -> None:
    """Measure a step of each."""
    save(
        __file__,
        QUESTION,
        [_row(what, *run) for what, run in RUNS.items()],
        note="a step on random images; Office-31: 10 + 160 epochs of its largest domain; MNIST to MNIST-M: 5 epochs of "
        "the source and 20 of the target, 6,000 images each, as in benchmark table2",
    )


def _row(what: str, side: int, classes: int, batch: int, images: int, epochs: int) -> dict[str, Any]:
    network = build("resnet18", 3, side, classes)
    x, labels = torch.randn(batch, 3, side, side), torch.randint(classes, (batch,))
    step = training(lambda: torch.nn.functional.cross_entropy(network(x), labels), network)
    return row(what, step, images, batch, epochs, repeats=5)
