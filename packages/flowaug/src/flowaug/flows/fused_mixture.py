"""Samples of a mixture of Gaussians with their unbiased gradient, worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from flowaug.flows.fused import Plain, again, tanh_backward

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class ImplicitMixture(torch.autograd.Function):
    r"""Samples of a mixture with their unbiased gradient, and their log-densities.

    The gradient is that of `flowaug.flows.mixture.implicit_mixture`. Let R be the gradient to a component's log-weight
    from the density and the later coordinates, $p_{ki}$ the weights given the coordinates before i, $f_i$ and $F_i$
    density and distribution function of i given those. The coordinates are gone through backwards:
    $q_i = \sum_k R_k t_{ki} / \sigma_{ki} - \bar z_i$, then $R_k$ gains $q_i p_{ki} (\Phi(t_{ki}) - F_i) / f_i$. What
    component k has of the density $f_i$ is the weight given one coordinate more, $p_{k,i+1}$.
    """

    @staticmethod
    def forward(
        ctx: Any, plain: Plain, bounds: tuple[float, float], z: Tensor, raw: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z (B, S, d) of the mixture that raw numbers (B, K, 2 d + 1) mean: the only input with a gradient.

        `parameters` are its locations and log-scales (B, K, d), within `bounds` these, and log-weights (B, K).
        """
        centre, size, log_weights = (value.transpose(0, -1).unsqueeze(-2).contiguous() for value in parameters)
        inverse = torch.exp(-size)
        t = (z.permute(2, 1, 0).contiguous()[:, None] - centre).mul_(inverse)
        posterior, log_sums = _posteriors(t, log_weights, size)
        ctx.plain, ctx.bounds = plain, bounds
        ctx.save_for_backward(z, raw, size, t, inverse, posterior, log_sums)
        return z.clone(), log_sums[-1].t()

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_prob: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient to the raw numbers."""
        z, raw, size, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, *again(ctx.plain, (z, raw), (grad_z, grad_log_prob)), None, None, None
        weight, loc, scale = _mixture_gradients(grad_z.permute(2, 1, 0), grad_log_prob.t(), *saved)
        low, high = ctx.bounds
        scale = tanh_backward(scale, size[:, :, 0].sub((low + high) / 2).mul_(2 / (high - low)))
        logit = torch.addcmul(weight, saved[2][0, :, 0], weight.sum(0), value=-1)
        found = torch.cat([loc, scale, logit[None]]).permute(2, 1, 0)
        return None, None, None, found, None, None, None


def _posteriors(t: Tensor, log_weights: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (d + 1, K, S, B) of the components given ever more coordinates, and their logarithmic sums (d + 1, S, B).

    The arguments are standardised values (d, K, S, B), log-weights (K, 1, B) and log-scales (d, K, 1, B).
    """
    levels = t.new_empty(len(t) + 1, *t.shape[1:])
    levels[0] = log_weights
    torch.addcmul(-size - _HALF_LOG_2PI, t, t, value=-0.5, out=levels[1:])
    for before, level in pairwise(levels):
        level.add_(before)
    highest = levels.amax(1, keepdim=True)
    total = levels.sub_(highest).exp_().sum(1, keepdim=True)
    return levels.div_(total), total.log_().add_(highest)[:, 0]


def _mixture_gradients(
    grad_z: Tensor, grad_log_prob: Tensor, t: Tensor, inverse: Tensor, posterior: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to log-weights (K, B), locations and log-scales (d, K, B), from those (d, S, B) and (S, B)."""
    p, slope = posterior[:-1], t * inverse
    deviation = (t * math.sqrt(0.5)).erf_().mul_(p)  # 2 p (Phi - F)
    deviation.addcmul_(p, deviation.sum(1, keepdim=True), value=-1)
    rate = 0.5 / log_sums.diff(dim=0).exp_().clamp_min_(torch.finfo(t.dtype).tiny)
    share = grad_log_prob * posterior[-1]
    shares, prices = [share], []
    steps = zip(slope.unbind(), grad_z.unbind(), rate.unbind(), deviation.unbind(), strict=True)
    for slope_i, grad, rate_i, deviation_i in reversed(list(steps)):
        prices.append((share * slope_i).sum(0).sub_(grad))
        share = torch.addcmul(share, prices[-1] * rate_i, deviation_i)
        shares.append(share)
    every = torch.stack(shares[-2::-1])
    moving = slope.mul_(every).addcmul_(posterior[1:], torch.stack(prices[::-1])[:, None], value=-1)
    grad_scale = moving.mul(t).div_(inverse).sub_(every).sum(2)
    return share.sum(1), moving.sum(2), grad_scale
