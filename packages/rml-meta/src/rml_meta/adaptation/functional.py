"""The inner loop as a pure function of `torch.func`, which can be batched and compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from rml_meta.adaptation.problem import InnerProblem, Params, StepRates, descend


def adapt_functional(
    problem: InnerProblem, fast: Params, slow: Params, x: Tensor, y: Tensor, rates: StepRates, first_order: bool
) -> Params:
    """Parameters after the inner loop; derivatives go through every step unless `first_order`."""
    gradient = torch.func.grad(problem.loss)
    for step, rate in enumerate(rates):
        grads = gradient(fast, slow, x, y, step)
        fast = descend(fast, rate, [grads[n].detach() if first_order else grads[n] for n in fast])
    return fast
