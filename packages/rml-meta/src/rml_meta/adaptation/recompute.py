r"""The inner loop with memory for one step's graph, whatever the number of steps.

The forward pass keeps the iterates $\theta^k$ alone. The backward pass walks back from $v = \partial L / \partial
\theta^K$ by one Hessian-vector product a step,

$$v \leftarrow v - \nabla_\theta \langle g(\theta^k), \alpha \odot v \rangle$$

with the step's gradient g computed again. The same product differentiated for parameters that do not adapt gives
their part of the gradient; $-v \odot g$ is that of the rate $\alpha$.

Random numbers come again as they came: the state of torch's generators is kept for each step, as
`torch.utils.checkpoint` keeps it. What is computed again is compared with what it was, so that a model that draws
otherwise is an error and no wrong gradient.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rml_meta.adaptation.closure import Rng, foreign_leaves, graph_mark
from rml_meta.adaptation.loop import adapt_loop
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import InnerLoop, InnerProblem, Params, descend
from rml_meta.adaptation.second_order import twice_differentiable

TOLERANCE = 1e-2
"""Largest relative difference of a step computed again; atomic sums of a GPU stay far below, other random numbers do
not."""


class _Foreign(Exception):
    """The loss holds tensors that need a gradient: they are inputs too."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.tensors = tensors


@dataclass(frozen=True)
class _Layout:
    """How the flat list of tensors splits into fast, slow, rates and held ones; `rates` holds numbers or places."""

    problem: InnerProblem
    fast: tuple[str, ...]
    slow: tuple[str, ...]
    rates: list[dict[str, tuple[float | None, int]]]
    held: tuple[Tensor, ...]
    autocast: tuple[str, bool, torch.dtype]

    def split(self, tensors: tuple[Tensor, ...]) -> tuple[Params, Params, tuple[Tensor, ...]]:
        f, s = len(self.fast), len(self.slow)
        fast = dict(zip(self.fast, tensors[:f], strict=True))
        slow = {n: p.detach().requires_grad_(p.requires_grad) for n, p in zip(self.slow, tensors[f:], strict=False)}
        return fast, slow, tensors[f + s : len(tensors) - len(self.held)]

    def rate(self, step: int, tensors: tuple[Tensor, ...]) -> dict[str, float | Tensor]:
        return {
            n: tensors[place].detach() if value is None else value for n, (value, place) in self.rates[step].items()
        }

    def context(self) -> contextlib.ExitStack:
        """The modes that the forward pass ran in, for the backward pass, which runs outside of the caller's."""
        stack = contextlib.ExitStack()
        device, enabled, dtype = self.autocast
        stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled))
        stack.enter_context(batch_statistics(self.problem.model))
        stack.enter_context(twice_differentiable(self.problem.model))
        return stack


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layout: _Layout, x: Tensor, y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        fast, slow, rates = layout.split(tensors)
        iterates, states = [], []
        mark = graph_mark()
        for step in range(len(layout.rates)):
            iterates.extend(fast.values())
            states.append(Rng(x))
            with torch.enable_grad():
                source = {n: p.detach().requires_grad_() for n, p in fast.items()}
                loss = layout.problem.loss(source, slow, x, y, step)
                if not step and (found := foreign_leaves(loss, [*source.values(), *slow.values(), *layout.held], mark)):
                    raise _Foreign(found)
                grads = torch.autograd.grad(loss, list(source.values()), allow_unused=True)
            fast = descend(fast, layout.rate(step, rates), grads)
        # an input may not be handed out as it is
        ends = tuple(p.clone() if p is q else p for p, q in zip(fast.values(), tensors, strict=False))
        ctx.layout, ctx.states = layout, states
        ctx.save_for_backward(x, y, *tensors, *iterates, *ends)
        return ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        walk = _Walk(ctx.layout, *ctx.saved_tensors)
        with ctx.layout.context():
            for step in reversed(range(len(ctx.states))):
                with ctx.states[step].replayed():
                    v = walk.back(step, v)
        walk.check()
        return None, None, None, *v, *walk.slow_grad, *walk.rate_grad, *walk.held_grad


class _Walk:
    """The backward pass: steps of the adjoint, and what they add to the gradients of all but the fast parameters."""

    def __init__(self, layout: _Layout, x: Tensor, y: Tensor, *saved: Tensor) -> None:
        self.layout, self.x, self.y = layout, x, y
        total = len(saved) - len(layout.fast) * (len(layout.rates) + 1)
        self.iterates = saved[total:]
        _, self.slow, self.rates = layout.split(saved[:total])
        self.slow_grad: list[Tensor | None] = [None] * len(self.slow)
        self.rate_grad: list[Tensor | None] = [None] * len(self.rates)
        self.held_grad: list[Tensor | None] = [None] * len(layout.held)
        self.differences: list[Tensor] = []

    def iterate(self, step: int) -> tuple[Tensor, ...]:
        count = len(self.layout.fast)
        return self.iterates[step * count : (step + 1) * count]

    def back(self, step: int, v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The adjoint before a step, from that behind it."""
        rate = list(self.layout.rate(step, self.rates).values())
        with torch.enable_grad():
            theta = [p.detach().requires_grad_() for p in self.iterate(step)]
            fast = dict(zip(self.layout.fast, theta, strict=True))
            loss = self.layout.problem.loss(fast, self.slow, self.x, self.y, step)
            grads = torch.autograd.grad(loss, theta, create_graph=True, allow_unused=True)
            terms = [(g, r * u) for g, r, u in zip(grads, rate, v, strict=True) if g is not None and g.requires_grad]
        self._compare(step, [None if g is None else r * g.detach() for r, g in zip(rate, grads, strict=True)])
        for (_, place), g, u in zip(self.layout.rates[step].values(), grads, v, strict=True):
            if place >= 0 and g is not None:
                shape = self.rates[place].shape
                self.rate_grad[place] = _plus(self.rate_grad[place], -(u * g.detach()).sum_to_size(shape))
        if not terms:  # a loss linear in the parameters
            return v
        wanted = [*theta, *(p for p in self.slow.values() if p.requires_grad), *self.layout.held]
        outputs, seeds = [g for g, _ in terms], [u.expand_as(g) for g, u in terms]
        products = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True)
        self._add(iter(products[len(theta) :]))
        return tuple(u if h is None else u - h for u, h in zip(v, products, strict=False))

    def _add(self, products: Any) -> None:
        for place, p in enumerate(self.slow.values()):
            if p.requires_grad:
                self.slow_grad[place] = _minus(self.slow_grad[place], next(products))
        self.held_grad = [_minus(total, next(products)) for total in self.held_grad]

    def _compare(self, step: int, moves: list[Tensor | None]) -> None:
        """Keep how far a step computed again is from the step as it was, relative to its size."""
        before, after = self.iterate(step), self.iterate(step + 1)
        pairs = [(p, q, m) for p, q, m in zip(before, after, moves, strict=True) if m is not None]
        if not pairs:
            return
        p, q, m = (list(part) for part in zip(*pairs, strict=True))
        moved = torch._foreach_sub(p, q)
        apart, size, rounding = (
            torch.stack(torch._foreach_norm(part)).float().norm() for part in (torch._foreach_sub(moved, m), moved, p)
        )
        rounding = rounding * (100 * torch.finfo(p[0].dtype).eps)
        self.differences.append((apart - rounding) / (size + rounding))

    def check(self) -> None:
        """Raise RuntimeError if a step was another one when it was computed again."""
        worst = float(torch.stack(self.differences).max()) if self.differences else 0.0
        if worst > TOLERANCE:
            raise RuntimeError(
                f"backend 'recompute' computed another inner loop again, {worst:.1g} apart: the model draws at random "
                "from a generator of its own, or it changed since the forward pass; use backend='loop'"
            )


def _plus(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value


def _minus(total: Tensor | None, value: Tensor | None) -> Tensor | None:
    return total if value is None else _plus(total, -value)


def adapt_recompute(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop, at the memory of one inner step.

    What the loss or the model draws at random comes again in the backward pass. Leaf tensors that they hold get their
    gradient.

    Raises:
        ValueError: The inputs or targets need a gradient, which this backend does not give, or the loss holds a tensor
            that needs one and is no leaf.
        RuntimeError: In the backward pass: a step was not the same when it was computed again.
    """
    if loop.first_order or not torch.is_grad_enabled() or not loop.step_rates:  # nothing to walk back through
        return adapt_loop(loop, x, y)
    check_constant(x, y, "recompute")
    tensors, layout_rates = _flat_rates(loop)
    kind = x.device.type
    autocast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    given = (x, y, *loop.fast.values(), *loop.slow.values(), *tensors)
    held: tuple[Tensor, ...] = ()
    before = Rng(x)
    while True:
        layout = _Layout(loop.problem, tuple(loop.fast), tuple(loop.slow), layout_rates, held, autocast)
        try:
            out = _Recompute.apply(layout, *given, *held)
        except _Foreign as found:
            held = (*held, *found.tensors)
            before.restore()
        else:
            return dict(zip(loop.fast, out, strict=True))  # pyright: ignore[reportArgumentType]  # apply is untyped


def _flat_rates(loop: InnerLoop) -> tuple[list[Tensor], list[dict[str, tuple[float | None, int]]]]:
    """The tensors among the rates, each once, and for every step and parameter a number or a place among them."""
    tensors: list[Tensor] = []
    places: dict[int, int] = {}
    table = []
    for rate in loop.step_rates:
        row: dict[str, tuple[float | None, int]] = {}
        for name, value in rate.items():
            if isinstance(value, Tensor):
                if id(value) not in places:
                    places[id(value)] = len(tensors)
                    tensors.append(value)
                row[name] = (None, places[id(value)])
            else:
                row[name] = (value, -1)
        table.append(row)
    return tensors, table


def check_constant(x: Tensor, y: Tensor, backend: str) -> None:
    """Raise a ValueError if the support set needs a gradient, which `backend` does not give."""
    for kind, value in (("inputs", x), ("targets", y)):
        if value.requires_grad:
            raise ValueError(f"backend {backend!r} gives no gradient of the support {kind}: use backend='loop'")
