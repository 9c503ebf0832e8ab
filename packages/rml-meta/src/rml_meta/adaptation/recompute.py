r"""The inner loop with memory for one step's graph, whatever the number of steps.

The forward pass keeps the iterates $\theta^k$ alone. The backward pass walks back from $v = \partial L / \partial
\theta^K$ by one Hessian-vector product a step,

$$v \leftarrow v - \nabla_\theta \langle g(\theta^k), \alpha \odot v \rangle$$

with the step's gradient g computed again. The same product differentiated for parameters that do not adapt gives
their part of the gradient; $-v \odot g$ is that of the rate $\alpha$.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rml_meta.adaptation.loop import adapt_loop
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import InnerLoop, InnerProblem, Params, descend


@dataclass(frozen=True)
class _Layout:
    """How the flat list of tensors splits into fast, slow and rates; `rates` holds numbers or places in the list."""

    problem: InnerProblem
    fast: tuple[str, ...]
    slow: tuple[str, ...]
    rates: list[dict[str, tuple[float | None, int]]]
    autocast: tuple[str, bool, torch.dtype]

    def split(self, tensors: tuple[Tensor, ...]) -> tuple[Params, Params, tuple[Tensor, ...]]:
        f, s = len(self.fast), len(self.slow)
        fast = dict(zip(self.fast, tensors[:f], strict=True))
        return fast, dict(zip(self.slow, tensors[f : f + s], strict=True)), tensors[f + s :]

    def rate(self, step: int, tensors: tuple[Tensor, ...]) -> dict[str, float | Tensor]:
        return {n: tensors[place] if value is None else value for n, (value, place) in self.rates[step].items()}

    def context(self) -> contextlib.ExitStack:
        """The modes that the forward pass ran in, for the backward pass, which runs outside of the caller's."""
        stack = contextlib.ExitStack()
        device, enabled, dtype = self.autocast
        stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled))
        stack.enter_context(batch_statistics(self.problem.model))
        return stack


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layout: _Layout, x: Tensor, y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        fast, slow, rates = layout.split(tensors)
        iterates = []
        for step in range(len(layout.rates)):
            iterates.extend(fast.values())
            with torch.enable_grad():
                source = {n: p.detach().requires_grad_() for n, p in fast.items()}
                loss = layout.problem.loss(source, slow, x, y, step)
                grads = torch.autograd.grad(loss, list(source.values()), allow_unused=True)
            fast = descend(fast, layout.rate(step, rates), grads)
        ctx.layout = layout
        ctx.save_for_backward(x, y, *tensors, *iterates)
        # an input may not be handed out as it is
        return tuple(p.clone() if p is q else p for p, q in zip(fast.values(), tensors, strict=False))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        layout: _Layout = ctx.layout
        x, y, *saved = ctx.saved_tensors
        count = len(layout.fast)
        total = len(saved) - count * len(layout.rates)
        _, slow, rates = layout.split(tuple(saved[:total]))
        slow = {n: p.detach().requires_grad_(p.requires_grad) for n, p in slow.items()}
        slow_grad: list[Tensor | None] = [None] * len(slow)
        rate_grad: list[Tensor | None] = [None] * len(rates)
        with layout.context():
            for step in reversed(range(len(layout.rates))):
                at = total + step * count
                theta = dict(zip(layout.fast, saved[at : at + count], strict=True))
                v, slow_grad = _walk_back(layout, step, theta, slow, rates, x, y, v, slow_grad, rate_grad)
        return None, None, None, *v, *slow_grad, *rate_grad


def _walk_back(
    layout: _Layout,
    step: int,
    theta: Params,
    slow: Params,
    rates: tuple[Tensor, ...],
    x: Tensor,
    y: Tensor,
    v: tuple[Tensor, ...],
    slow_grad: list[Tensor | None],
    rate_grad: list[Tensor | None],
) -> tuple[tuple[Tensor, ...], list[Tensor | None]]:
    """One step back: the adjoint before it, and what it adds to the gradients of slow parameters and rates."""
    rate = {n: r.detach() if isinstance(r, Tensor) else r for n, r in layout.rate(step, rates).items()}
    with torch.enable_grad():
        theta = {n: p.detach().requires_grad_() for n, p in theta.items()}
        loss = layout.problem.loss(theta, slow, x, y, step)
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True, allow_unused=True)
        terms = [(g, rate[n] * u) for n, g, u in zip(theta, grads, v, strict=True) if g is not None and g.requires_grad]
    for (_, place), g, u in zip(layout.rates[step].values(), grads, v, strict=True):
        if place >= 0 and g is not None:
            rate_grad[place] = _plus(rate_grad[place], -(u * g.detach()).sum_to_size(rates[place].shape))
    wanted = [*theta.values(), *(p for p in slow.values() if p.requires_grad)]
    if not terms:  # a loss linear in the parameters
        return v, slow_grad
    products = torch.autograd.grad([g for g, _ in terms], wanted, [u.expand_as(g) for g, u in terms], allow_unused=True)
    v = tuple(u if h is None else u - h for u, h in zip(v, products, strict=False))
    added = iter(products[len(theta) :])
    updated = [_minus(s, next(added)) if p.requires_grad else s for p, s in zip(slow.values(), slow_grad, strict=True)]
    return v, updated


def _plus(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value


def _minus(total: Tensor | None, value: Tensor | None) -> Tensor | None:
    return total if value is None else _plus(total, -value)


def adapt_recompute(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop, at the memory of one inner step.

    Raises:
        ValueError: The model has dropout in training mode, which would differ when computed again, or the inputs
            need a gradient, which this backend does not give.
    """
    rates = loop.step_rates
    if loop.first_order or not torch.is_grad_enabled() or not rates:  # nothing to walk back through
        return adapt_loop(loop, x, y)
    _check(loop.problem.model, x)
    tensors: list[Tensor] = []
    places: dict[int, int] = {}
    layout_rates: list[dict[str, tuple[float | None, int]]] = []
    for rate in rates:
        row: dict[str, tuple[float | None, int]] = {}
        for name, value in rate.items():
            if isinstance(value, Tensor):
                if id(value) not in places:
                    places[id(value)] = len(tensors)
                    tensors.append(value)
                row[name] = (None, places[id(value)])
            else:
                row[name] = (value, -1)
        layout_rates.append(row)
    kind = x.device.type
    autocast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    layout = _Layout(loop.problem, tuple(loop.fast), tuple(loop.slow), layout_rates, autocast)
    out = _Recompute.apply(layout, x, y, *loop.fast.values(), *loop.slow.values(), *tensors)
    return dict(zip(loop.fast, out, strict=True))  # pyright: ignore[reportArgumentType]  # apply is untyped


def _check(model: nn.Module, x: Tensor) -> None:
    if x.requires_grad:
        raise ValueError("backend 'recompute' gives no gradient of the support inputs: use backend='loop'")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ValueError(
                f"{name} drops out at random, which would differ when computed again: "
                "put it in evaluation mode, or use backend='loop'"
            )
