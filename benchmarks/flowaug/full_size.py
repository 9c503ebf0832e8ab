"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

from typing import Any

import torch
from flowaug import AffineSpace, AugmentedClassifier, CropSpace, FlowAugmenter, FlowSpec
from flowaug.networks import build

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs on photos take on one core?"
PAPERS = "CIFAR-10, flow, the paper's network and schedule"


def main() -> None:
    """Measure a step of each."""
    affine = AffineSpace(("tx", "ty", "rot", "scale", "stretch", "shear"))
    rows = [
        _row(PAPERS, "fixup_resnet8", 32, 10, affine, 20, 8, 50_000, 200),
        _row("CIFAR-10, no augmentation", "fixup_resnet8", 32, 10, None, 1, 64, 50_000, 200),
        _row("CIFAR-10, 13-layer network, flow", "layer13", 32, 10, affine, 5, 10, 50_000, 200),
        _row("TinyImageNet, flow", "preact_resnet18", 64, 200, CropSpace(), 4, 5, 100_000, 160),
    ]
    save(__file__, QUESTION, rows, note="a step on random images; views, images and epochs are the presets'")


def _row(
    what: str, name: str, side: int, classes: int, space: Any, views: int, batch: int, images: int, epochs: int
) -> dict[str, Any]:
    network = build(name, 3, side, classes)
    x, labels = torch.rand(batch, 3, side, side) * 2 - 1, torch.randint(classes, (batch,))
    if space is None:
        return row(
            what,
            training(lambda: torch.nn.functional.cross_entropy(network(x), labels), network),
            images,
            batch,
            epochs,
        )
    model = AugmentedClassifier(network, FlowAugmenter(space, flow=FlowSpec(layers=12)), n_train=views)
    return row(what, training(lambda: model.loss(x, labels, alpha=0.1).total, model), images, batch, epochs)
