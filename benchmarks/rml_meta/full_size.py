"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

import torch
from rml_meta import MAML, Classifier, Episode, ProtoNet, build_backbone
from rml_meta.networks import Backbone
from torch import nn

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs on miniImageNet take on one core?"
SIDE, WAYS, QUERIES, TASKS = 84, 5, 15, 60_000


def main() -> None:
    """Measure a step of one task; nothing of an epoch is said in the paper, so the usual 60,000 tasks are counted."""
    x, labels = torch.randn(1, WAYS, 3, SIDE, SIDE), torch.arange(WAYS)[None]
    queries = torch.randn(1, WAYS * QUERIES, 3, SIDE, SIDE)
    task = Episode(x, labels, queries, labels.repeat(1, QUERIES))
    methods: dict[str, nn.Module] = {
        "miniImageNet, MAML, Conv4 at 84 pixels": MAML(
            Classifier(_backbone(), ways=WAYS), inner_lr=0.01, inner_steps=5
        ),
        "miniImageNet, ProtoNet, Conv4 at 84 pixels": ProtoNet(_backbone()),
    }
    rows = [
        row(what, training(lambda method=method: method.training_loss(task), method), TASKS, 1, 1)  # type: ignore[misc]
        for what, method in methods.items()
    ]
    save(
        __file__, QUESTION, rows, note="a step of one task of 5 ways, 1 shot and 15 queries a class; an image is a task"
    )


def _backbone() -> Backbone:
    return build_backbone("conv4", channels=3, image_size=SIDE)
