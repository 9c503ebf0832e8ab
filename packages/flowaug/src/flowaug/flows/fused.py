"""Sampling with gradients worked out by hand: the values of the plain layers in fewer operations.

Both functions hold a number per coordinate, sample and image as (d, S, B), so that every product and sum runs along
images, and write their backward passes without autograd's graph. Second derivatives come from the plain layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _len_torch_dispatch_stack

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
Plain = Callable[..., tuple[Tensor, Tensor]]


def usable() -> bool:
    """Whether nothing looks inside: no compiler, exporter, functional transform, mode or forward-mode derivative."""
    traced = torch.compiler.is_compiling() or _len_torch_dispatch_stack() > 0
    return not traced and not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def _again(plain: Plain, inputs: Sequence[Any], grads: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of `plain`, which can be differentiated once more."""
    with torch.enable_grad():
        wanted = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
        found = iter(torch.autograd.grad(plain(*inputs), wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if isinstance(value, Tensor) and value.requires_grad else None for value in inputs]


class ImplicitMixture(torch.autograd.Function):
    r"""Samples of a mixture with their unbiased gradient, and their log-densities.

    The gradient is that of `flowaug.flows.mixture.implicit_mixture`. Let R be the gradient to a component's log-weight
    from the density and the later coordinates, and $c_i = -\bar z_i / f_i$. The coordinates are gone through backwards:
    $\bar z_i$ loses $\sum_k R_k t_{ki} / \sigma_{ki}$, then $R_k$ gains $c_i p_k (\Phi(t_{ki}) - F_i)$.
    """

    @staticmethod
    def forward(
        ctx: Any, plain: Plain, z: Tensor, log_weights: Tensor, loc: Tensor, log_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z (B, S, d) without gradient, of weights (B, K), locations and log-scales (B, K, d); see the class."""
        points = z.permute(2, 1, 0).contiguous()
        centre, size = (value.permute(2, 1, 0)[:, :, None].contiguous() for value in (loc, log_scale))
        t = (points[:, None] - centre).mul_(torch.exp(-size))
        terms = torch.square(t).mul_(-0.5).sub_(size)
        # log-posteriors given the coordinates before, not normalised
        levels = t.new_empty(len(t) + 1, *t.shape[1:])
        levels[0] = log_weights.t()[:, None]
        for i, term in enumerate(terms):
            torch.add(levels[i], term, out=levels[i + 1])
        log_prob = levels[-1].logsumexp(0) - len(points) * _HALF_LOG_2PI
        ctx.plain = plain
        ctx.save_for_backward(z, log_weights, loc, log_scale, t, terms, size, levels.softmax(1))
        return points.permute(2, 1, 0).clone(memory_format=torch.contiguous_format), log_prob.t()

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_prob: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients to weights, locations and log-scales."""
        z, log_weights, loc, log_scale, t, terms, size, posterior = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = (z, log_weights, loc, log_scale)
            return None, *_again(ctx.plain, given, (grad_z, grad_log_prob))
        p, grad_z = posterior[:-1], grad_z.permute(2, 1, 0)
        inverse = torch.exp(-size)
        kernel = torch.exp_(terms - _HALF_LOG_2PI).mul_(p)  # p_k times the density
        density = kernel.sum(1).clamp_min_(torch.finfo(t.dtype).tiny)
        distribution = torch.special.ndtr(t).mul_(p)
        distribution.sub_(p * distribution.sum(1, keepdim=True))
        slope = t * inverse
        shares, prices = torch.empty_like(t), torch.empty_like(density)
        share = grad_log_prob.t() * posterior[-1]
        for i in reversed(range(len(t))):
            shares[i] = share
            prices[i] = ((share * slope[i]).sum(0) - grad_z[i]).div_(density[i])
            share = torch.addcmul(share, prices[i], distribution[i])
        moving = kernel.mul_(prices[:, None])
        grad_loc = slope.mul_(shares).sub_(moving).sum(2)
        grad_scale = (torch.square(t).sub_(1).mul_(shares) - moving.mul_(t).div_(inverse)).sum(2)
        back = (share.sum(1).t(), grad_loc.permute(2, 1, 0), grad_scale.permute(2, 1, 0))
        return None, None, *back


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
def orders_of(sets: tuple[Halves, ...], device: torch.device) -> tuple[Tensor | None, ...]:
    """What brings the coordinates, as one layer leaves them (the kept before the moved), into the order of the next.

    None where two halves change places. The last one leads back to where they began.
    """
    held = tuple(range(sum(map(len, sets[0]))))
    orders: list[Tensor | None] = []
    last: Halves = (held, ())
    for kept, moved in (*sets, (held, ())):
        swapped = bool(orders) and (moved, kept) == last
        wanted = [(*last[0], *last[1]).index(k) for k in (*kept, *moved)]
        orders.append(None if swapped else torch.tensor(wanted, device=device))
        last = (kept, moved)
    return tuple(orders)


class AffineStack(torch.autograd.Function):
    """Affine couplings one after another, then a tanh where there is a box, with the log-determinant of all.

    The arguments are a `Stack`, z (B, S, d), the context terms of all layers (L width, B), and per layer the weight of
    `inner` (width, kept), weight and bias of `outer` (2 moved, width) and (2 moved).
    """

    @staticmethod
    def forward(ctx: Any, stack: Stack, z: Tensor, terms: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        batch, n, d = z.shape
        orders = orders_of(stack.sets, z.device)
        fixed, new = z.permute(2, 1, 0).reshape(d, -1).split([0, d])
        width, count = len(weights[0]), len(stack.sets)
        hidden = z.new_empty(count, width, n * batch)
        parts = zip(hidden, hidden.view(count, width, n, batch), terms.view(count, width, 1, batch), strict=True)
        held: list[Tensor] = []
        for i, (below, views, term) in enumerate(parts):
            fixed, old = _turned(orders[i], fixed, new, len(stack.sets[i][0]))
            torch.mm(weights[3 * i], fixed, out=below)
            views.add_(term)
            raw = torch.addmm(weights[3 * i + 2][:, None], weights[3 * i + 1], below.relu_())
            scale, shift = raw.chunk(2)
            bent = scale.div_(3).tanh_()
            factor = torch.exp(3 * bent)
            new = torch.addcmul(shift, old, factor)
            held += [fixed, old, bent, factor]
        state, _ = _turned(orders[-1], fixed, new, d)
        total = torch.cat(held[2::4]).sum(0).mul_(3)
        if stack.box:
            total += (math.log(2) - state - F.softplus(-2 * state)).sum(0).mul_(2)
            state = state.tanh()
        ctx.stack, ctx.orders = stack, orders
        ctx.save_for_backward(z, terms, *weights, hidden, state, *held)
        samples = state.view(d, n, batch).permute(2, 1, 0).clone(memory_format=torch.contiguous_format)
        return samples, total.view(n, batch).t()

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients to z, context terms and weights."""
        stack, orders, saved, count = ctx.stack, ctx.orders, ctx.saved_tensors, len(ctx.stack.sets)
        given, (hidden, state, *held) = saved[: 2 + 3 * count], saved[2 + 3 * count :]
        if torch.is_grad_enabled():
            return None, *_again(stack.plain, given, (grad_z, grad_log_det))
        (batch, n, d), weights = grad_z.shape, given[2:]
        grad_total = grad_log_det.t().reshape(-1)
        grad = grad_z.permute(2, 1, 0).reshape(d, -1)
        if stack.box:
            grad = torch.ops.aten.tanh_backward(grad, state).sub_(2 * grad_total * state)
        grad_fixed, grad_new = _turned_back(orders[-1], grad, grad[d:], len(stack.sets[-1][0]))
        grad_hidden, found = torch.empty_like(hidden), []
        for i in reversed(range(count)):
            (inner, outer, _), (fixed, old, bent, factor) = weights[3 * i : 3 * i + 3], held[4 * i : 4 * i + 4]
            scaled, below = grad_new * factor, grad_hidden[i]
            bend = torch.ops.aten.tanh_backward(torch.addcmul(grad_total, scaled, old), bent)
            raw = torch.cat([bend, grad_new])
            torch.mm(outer.t(), raw, out=below)
            torch.ops.aten.threshold_backward.grad_input(below, hidden[i], 0, grad_input=below)  # through the relu
            found = [below @ fixed.t(), raw @ hidden[i].t(), raw.sum(1), *found]
            grad_fixed = torch.addmm(grad_fixed, inner.t(), below)
            kept = len(stack.sets[i - 1][0]) if i else 0
            grad_fixed, grad_new = _turned_back(orders[i], grad_fixed, scaled, kept)
        grad_terms = grad_hidden.view(len(given[1]), n, batch).sum(1)
        return None, grad_new.reshape(d, n, batch).permute(2, 1, 0), grad_terms, *found


def _turned(order: Tensor | None, fixed: Tensor, new: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Coordinates as one layer leaves them, as the next one takes them: those that stay, and those that move."""
    if order is None:
        return new, fixed
    state = torch.cat([fixed, new]).index_select(0, order)
    return state[:kept], state[kept:]


def _turned_back(order: Tensor | None, fixed: Tensor, old: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The inverse of `_turned`, whose layer before kept so many coordinates."""
    if order is None:
        return old, fixed
    state = torch.cat([fixed, old])
    state = torch.empty_like(state).index_copy_(0, order, state)
    return state[:kept], state[kept:]
