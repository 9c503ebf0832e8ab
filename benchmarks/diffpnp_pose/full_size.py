"""Core-hours of the paper's runs that were not made."""

from __future__ import annotations

import torch
from diffpnp_pose.networks import hrnet

from benchmarks.common import save
from benchmarks.cost import row, training

QUESTION = "How long would the paper's runs on UAVA take on one core?"
BATCH = 2


def main() -> None:
    """Measure a step of heat-maps."""
    network, images = hrnet(9, "w48"), torch.randn(BATCH, 3, 240, 320)
    step = training(lambda: torch.stack([maps.square().mean() for maps in network(images)]).sum(), network)
    rows = [row("UAVA, HRNet-w48", step, 40_000, BATCH, 30)]
    save(
        __file__, QUESTION, rows, note="a step on random images of 320x240; 40,000 images, 30 epochs of the first phase"
    )
