"""Affine couplings one after another with their gradient, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowaug.flows.fused import Plain, again, tanh_backward

Orders = tuple[Tensor | None, ...]
Weights = tuple[Tensor, ...]
_threshold_backward = torch.ops.aten.threshold_backward.grad_input
Halves = tuple[tuple[int, ...], tuple[int, ...]]
"""The coordinates that a coupling leaves and those that it moves."""


class Stack(NamedTuple):
    """What `AffineStack` runs, but for its weights."""

    plain: Plain
    """The same by the plain layers, of z, terms and weights."""
    sets: tuple[Halves, ...]
    """Of each layer."""
    box: bool
    """Whether a tanh follows."""


@lru_cache(maxsize=64)
def orders_of(sets: tuple[Halves, ...], device: torch.device) -> tuple[Orders, Orders]:
    """What brings the coordinates, as one layer leaves them (the kept before the moved), into the order of the next.

    None where two halves change places. The last one leads back to where they began. Then the inverse of each.
    """
    held = tuple(range(sum(map(len, sets[0]))))
    orders: list[Tensor | None] = []
    last: Halves = (held, ())
    for kept, moved in (*sets, (held, ())):
        swapped = bool(orders) and (moved, kept) == last
        wanted = [(*last[0], *last[1]).index(k) for k in (*kept, *moved)]
        orders.append(None if swapped else torch.tensor(wanted, device=device))
        last = (kept, moved)
    return tuple(orders), tuple(None if order is None else order.argsort() for order in orders)


class AffineStack(torch.autograd.Function):
    """Affine couplings one after another, then a tanh where there is a box, with the log-determinant of all.

    The arguments are a `Stack`, z (B, S, d), the contexts (B, E), and of all layers first the weights (width, E) and
    biases (width) of their context terms, then the weights of `inner` (width, kept), then weights (2 moved, width) and
    biases (2 moved) of `outer`.
    """

    @staticmethod
    def forward(ctx: Any, stack: Stack, z: Tensor, context: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        batch, n, d = z.shape
        orders, back = orders_of(stack.sets, z.device)
        state, held = _couplings(stack, orders, z.permute(2, 1, 0), _terms(context, weights), weights)
        total = torch.cat(held[3::5]).sum(0).mul_(3)
        if stack.box:
            total += (math.log(2) - state - F.softplus(-2 * state)).sum(0).mul_(2)
            state = state.tanh()
        ctx.stack, ctx.orders = stack, back
        ctx.save_for_backward(z, context, *weights, state, *held)
        samples = state.view(d, n, batch).permute(2, 1, 0).clone(memory_format=torch.contiguous_format)
        return samples, total.view(n, batch).t()

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients to z, contexts and weights."""
        stack, saved, count = ctx.stack, ctx.saved_tensors, len(ctx.stack.sets)
        given, (state, *held) = saved[: 2 + 5 * count], saved[2 + 5 * count :]
        if torch.is_grad_enabled():
            return None, *again(stack.plain, given, (grad_z, grad_log_det))
        batch, n, d = grad_z.shape
        grad_total, grad = grad_log_det.t().reshape(-1), grad_z.permute(2, 1, 0).reshape(d, -1)
        if stack.box:
            grad = tanh_backward(grad, state).sub_(2 * grad_total * state)
        grad, below, found = _couplings_back(stack, ctx.orders, grad, grad_total, held, given[2:])
        grad_term = torch.cat([value.view(len(value), n, batch).sum(1) for value in below])
        grad_context = grad_term.t() @ torch.cat(given[2 : 2 + count])
        terms = ((grad_term @ given[1]).chunk(count), grad_term.sum(1).chunk(count))
        return None, grad.reshape(d, n, batch).permute(2, 1, 0), grad_context, *chain(*terms, *found)


def _terms(context: Tensor, weights: Weights) -> Tensor:
    """The context terms (L, width, 1, B) of all layers, by one product."""
    count = len(weights) // 5
    weight, bias = torch.cat(weights[:count]), torch.cat(weights[count : 2 * count])
    return torch.addmm(bias[:, None], weight, context.t()).view(count, len(weight) // count, 1, len(context))


def _thirds(weights: Weights) -> tuple[Weights, ...]:
    """Of all layers: weights of `inner`, weights and biases of `outer`."""
    count = len(weights) // 5
    return tuple(weights[i * count : (i + 1) * count] for i in (2, 3, 4))


def _couplings(
    stack: Stack, orders: Orders, state: Tensor, terms: Tensor, weights: Weights
) -> tuple[Tensor, list[Tensor]]:
    """The state (d, S, B) after all layers as (d, S B), and five tensors of each layer that its gradients need."""
    shape, new = state.shape[1:], state.reshape(len(state), -1)
    fixed = new[:0]
    held: list[Tensor] = []
    parts = zip(orders[:-1], stack.sets, terms, *_thirds(weights), strict=True)
    for order, (kept, _), term, inner, outer, bias in parts:
        fixed, old = _turned(order, fixed, new, len(kept))
        hidden = torch.mm(inner, fixed)
        hidden.view(len(hidden), *shape).add_(term)
        scale, shift = torch.addmm(bias[:, None], outer, hidden.relu_()).chunk(2)
        bent = scale.div_(3).tanh_()
        factor = torch.mul(bent, 3).exp_()
        new = torch.addcmul(shift, old, factor)
        held += [fixed, hidden, old, bent, factor]
    return _turned(orders[-1], fixed, new, len(state))[0], held


def _couplings_back(
    stack: Stack, orders: Orders, grad: Tensor, grad_total: Tensor, held: Sequence[Tensor], weights: Weights
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, ...]]]:
    """Gradients to the state, to each layer's hidden units before their relu, and to the weights of `_thirds`."""
    inners, outers, _ = _thirds(weights)
    sizes = [0, *(len(kept) for kept, _ in stack.sets)]
    grad_fixed, grad_new = _turned(orders[-1], grad, grad[:0], sizes[-1])
    every: list[Tensor] = []
    found: list[tuple[Tensor, ...]] = []
    for i in reversed(range(len(stack.sets))):
        fixed, hidden, old, bent, factor = held[5 * i : 5 * i + 5]
        scaled = grad_new * factor
        raw = torch.cat([tanh_backward(torch.addcmul(grad_total, scaled, old), bent), grad_new])
        below = torch.mm(outers[i].t(), raw)
        _threshold_backward(below, hidden, 0, grad_input=below)  # through the relu
        every.append(below)
        found.append((below @ fixed.t(), raw @ hidden.t(), raw.sum(1)))
        grad_fixed = torch.addmm(grad_fixed, inners[i].t(), below)
        grad_fixed, grad_new = _turned(orders[i], grad_fixed, scaled, sizes[i])
    return grad_new, every[::-1], list(zip(*reversed(found), strict=True))


def _turned(order: Tensor | None, fixed: Tensor, new: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Coordinates as one layer leaves them, as the next one takes them: those that stay, and those that move."""
    if order is None:
        return new, fixed
    state = torch.cat([fixed, new]).index_select(0, order)
    return state[:kept], state[kept:]
