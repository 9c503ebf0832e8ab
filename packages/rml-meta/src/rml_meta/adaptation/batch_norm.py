r"""Batch norm with a short second derivative.

torch writes out the second derivative in some thirty passes over the activations. Here it takes two of its own fused
first derivatives and six passes: with $\hat x = r (x - \mu)$ and the first derivative $\gamma r (g - \bar g - \hat x\,
\overline{g \hat x})$, both kinds of terms are again first derivatives, of $u$ and of a mixture of $u$ and $g$.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`x` (M, C, ...) normalised by its own statistics, scaled by `weight` and shifted by `bias` (C,).

    On a CPU it can be differentiated twice, and not a third time.
    """
    plain = weight is None or bias is None or not x.is_cpu or not x.dtype == weight.dtype == bias.dtype
    if plain or x.dtype not in (torch.float32, torch.float64) or x.numel() == x.shape[1]:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    return _Norm.apply(x, weight, bias, eps)  # type: ignore[return-value]


def _first(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of a sum weighed by `g`: for x, weight and bias."""
    mask = [True, True, True]
    return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, r, True, 0.0, mask)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, r = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, r = ctx.saved_tensors
        return *_NormBackward.apply(g, x, weight, mean, r), None  # type: ignore[misc]


class _NormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        dx, dweight, dbias = _first(g, x, weight, mean, r)
        ctx.save_for_backward(g, x, weight, mean, r, dweight, dbias)
        return dx, dweight, dbias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, of_weight: Tensor, of_bias: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        g, x, weight, mean, r, sum_gx, sum_g = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        shape = (1, -1, *(1,) * (x.dim() - 2))
        others = [d for d in range(x.dim()) if d != 1]
        grad_g, sum_ux, sum_u = _first(u, x, weight, mean, r)
        slope = r * ((u * g).sum(others) - (sum_u * sum_g + sum_ux * sum_gx) / count)  # of the derivative by the weight
        scale = weight * r / count
        mixed = (u * (-scale * sum_gx).view(shape)).addcmul_(g, (of_weight - scale * sum_ux).view(shape))
        grad_x, _, _ = _first(mixed, x, torch.ones_like(weight), mean, r)
        by_r = weight * slope * r**2 / count
        grad_x.addcmul_(x, (-by_r).view(shape)).add_((by_r * mean).view(shape))
        tilt = of_weight * r
        grad_g.addcmul_(x, tilt.view(shape)).add_((of_bias - tilt * mean).view(shape))
        return grad_g, grad_x, slope, None, None
