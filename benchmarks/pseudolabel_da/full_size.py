"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

import torch
from pseudolabel_da.networks import build

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs on Modern Office-31 take on one core?"
SIDE, BATCH = 224, 2
AMAZON = 2817  # images of its largest domain


def main() -> None:
    """Measure a step."""
    network = build("resnet18", 3, SIDE, 31)
    x, labels = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(31, (BATCH,))
    step = training(lambda: torch.nn.functional.cross_entropy(network(x), labels), network)
    rows = [row("Office-31, ResNet-18", step, AMAZON, BATCH, 170)]
    save(__file__, QUESTION, rows, note="a step on random images; 10 + 160 epochs of the largest domain")
