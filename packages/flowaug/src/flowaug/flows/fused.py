"""What gradients worked out by hand share: when they may be used, and where second derivatives come from.

The functions of `fused_mixture` and `fused_stack` give the values of the plain layers in fewer operations. They hold a
number per coordinate, sample and image as (d, S, B), so that every product and sum runs along images, and write their
backward passes without autograd's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _len_torch_dispatch_stack

Plain = Callable[..., tuple[Tensor, Tensor]]
"""The same samples and log-densities by autograd, from the inputs of a function."""

tanh_backward = torch.ops.aten.tanh_backward.default


def usable() -> bool:
    """Whether nothing looks inside: no compiler, exporter, functional transform, mode or forward-mode derivative."""
    traced = torch.compiler.is_compiling() or _len_torch_dispatch_stack() > 0
    return not traced and not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def again(plain: Plain, inputs: Sequence[Any], grads: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of `plain` to each of its inputs, which can be differentiated once more."""
    with torch.enable_grad():
        # one input may come from another: a gradient to its view holds nothing of that way
        inputs = [value.view_as(value) if isinstance(value, Tensor) else value for value in inputs]
        wanted = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
        found = iter(torch.autograd.grad(plain(*inputs), wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if isinstance(value, Tensor) and value.requires_grad else None for value in inputs]
