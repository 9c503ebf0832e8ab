"""The inner loop as plain autograd: exact for every module, hooks and tied weights included."""

from __future__ import annotations

import torch
from torch import Tensor

from rml_meta.adaptation.problem import InnerLoop, Params, descend


def loop_path(loop: InnerLoop, x: Tensor, y: Tensor) -> list[Params]:
    """Parameters before each inner step and after the last, one more than there are steps.

    Under `torch.no_grad` no graph outlives a step. In first order only the identity links an iterate to the one
    before it, so that its gradient is that of the initial parameters.
    """
    keep = torch.is_grad_enabled()
    fast = loop.fast
    path = [fast]
    for step, rate in enumerate(loop.step_rates):
        with torch.enable_grad():
            # only a leaf or a link of the graph can be differentiated for
            source = {n: p if keep and p.requires_grad else p.detach().requires_grad_() for n, p in fast.items()}
            loss = loop.problem.loss(source, loop.slow, x, y, step)
            grads = torch.autograd.grad(
                loss, list(source.values()), create_graph=keep and not loop.first_order, allow_unused=True
            )
        fast = descend(source if keep else fast, rate, grads)
        del loss, grads, source  # the next step is made where they were
        path.append(fast)
    return path


def adapt_loop(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop; see `loop_path`."""
    return loop_path(loop, x, y)[-1]
