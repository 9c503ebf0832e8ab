"""What a run at the paper's size would take, from a step of training measured on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.common import interleaved


def row(
    what: str, step: Callable[[], Any], images: int, per_step: int, epochs: float, repeats: int = 2
) -> dict[str, Any]:
    """A row of a table of costs.

    Args:
        what: The run.
        step: One step of training on `per_step` images.
        images: In an epoch.
        per_step: Images of the measured step; the paper's batch may be larger.
        epochs: Of the run.
        repeats: Measured steps after one that is not.
    """
    torch.set_num_threads(1)
    times = interleaved({what: step}, repeats, warmup=1, clock=time.process_time)
    seconds = statistics.median(times[what])
    hours = seconds / per_step * images * epochs / 3600
    return {
        "what": what,
        "images of the measured step": per_step,
        "step (core-s)": round(seconds, 3),
        "images an epoch": images,
        "epochs": epochs,
        "core-hours": round(hours, 1),
    }


def training(loss: Callable[[], torch.Tensor], module: nn.Module) -> Callable[[], None]:
    """A step of SGD on a loss."""
    optimizer = torch.optim.SGD(module.parameters(), 1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step
