"""The inner loop as a pure function of `torch.func`, which can be batched and compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from rml_meta.adaptation.problem import InnerLoop, Params, descend


def adapt_functional(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop; derivatives go through every step unless it is of first order."""
    gradient, fast = torch.func.grad(loop.problem.loss), loop.fast
    for step, rate in enumerate(loop.step_rates):
        grads = gradient(fast, loop.slow, x, y, step)
        fast = descend(fast, rate, [grads[n].detach() if loop.first_order else grads[n] for n in fast])
    return fast
