"""What torch cannot differentiate twice, or differentiates wrongly, computed by means that it can."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm


@contextlib.contextmanager
def twice_differentiable(model: nn.Module, needed: bool = True) -> Iterator[None]:
    """Within, the gradient of `model` can be differentiated again, and rightly.

    The fused kernel of `torch.nn.utils.parametrizations.weight_norm`, and of the older `weight_norm`, has a wrong
    second derivative on the CPU (torch 2.15; `gradgradcheck` of `torch._weight_norm` fails): the weight is written out
    instead. Attention has no second derivative in its fused kernels: the plain one of mathematics is taken. Hardsigmoid
    has none at all: it is written as a ReLU6.

    Args:
        model: Whatever is called within.
        needed: Whether there are second derivatives at all; without, attention keeps its fast kernels.
    """
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if needed and isinstance(module, nn.Hardsigmoid):
                stack.enter_context(_method(module, "forward", _hard_sigmoid))
            if isinstance(module, _WeightNorm):
                stack.enter_context(_method(module, "forward", _parametrized))
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, WeightNorm):
                    stack.enter_context(_method(hook, "compute_weight", _older))
        if needed:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@contextlib.contextmanager
def _method(owner: Any, name: str, function: Any) -> Iterator[None]:
    """Within, `owner` has `function` for the method `name`; within itself it changes nothing."""
    if name in vars(owner):
        yield
        return
    object.__setattr__(owner, name, types.MethodType(function, owner))
    try:
        yield
    finally:
        object.__delattr__(owner, name)


def _hard_sigmoid(self: nn.Hardsigmoid, x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


def _parametrized(self: _WeightNorm, weight_g: Tensor, weight_v: Tensor) -> Tensor:
    return normed_weight(weight_g, weight_v, self.dim)


def _older(self: WeightNorm, module: nn.Module) -> Tensor:
    return normed_weight(getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v"), self.dim)


def normed_weight(length: Tensor, direction: Tensor, dim: int) -> Tensor:
    r"""$g\, v / \|v\|$, the norm over all dimensions but `dim`; -1 for all."""
    if dim == -1:
        return direction * (length / torch.linalg.vector_norm(direction))
    others = [d for d in range(direction.dim()) if d != dim]
    return direction * (length / torch.linalg.vector_norm(direction, dim=others, keepdim=True))
