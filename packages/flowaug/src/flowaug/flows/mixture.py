"""Mixtures of diagonal Gaussians as pure functions: density, exact samples, and two gradients through them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowaug.flows import noise

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _component_terms(z: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised values and log-densities (..., K, d) of z (..., d) per component and coordinate."""
    t = (z[..., None, :] - loc) * torch.exp(-log_scale)
    return t, -0.5 * t.square() - log_scale - _HALF_LOG_2PI


def mixture_log_prob(z: Tensor, log_weights: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Log-densities (...) of z (..., d); normalised log-weights (..., K), locations and log-scales (..., K, d)."""
    return torch.logsumexp(log_weights + _component_terms(z, loc, log_scale)[1].sum(-1), -1)


def draw_components(
    log_weights: Tensor, loc: Tensor, log_scale: Tensor, n: int, generator: torch.Generator | None = None
) -> Tensor:
    """n exact samples (B, n, d), without gradient, of mixtures (B, K), (B, K, d), (B, K, d).

    The component is found in the cumulated weights, which waits for no device, as `torch.multinomial` may.
    """
    B, K = log_weights.shape
    cumulated = log_weights.exp().cumsum(-1)
    u = noise.uniform((B, n), loc, generator) * cumulated[:, -1:]
    chosen = torch.searchsorted(cumulated, u, right=True).clamp_max(K - 1)[..., None].expand(-1, -1, loc.shape[-1])
    normal = noise.normal((B, n, loc.shape[-1]), loc, generator)
    return loc.gather(1, chosen) + normal * torch.exp(log_scale.gather(1, chosen))


def implicit_mixture(z: Tensor, log_weights: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    r"""Samples z (..., d) with the unbiased pathwise gradient to all parameters of their mixture, weights included.

    With $F_i(z_i \mid z_{<i})$ the distribution function of a coordinate given those before it, $F_i$ of a sample does
    not move with the parameters: $dz_i = -(\partial_\phi F_i\, d\phi + \sum_{j<i} \partial_{z_j} F_i\, dz_j) / f_i$
    (Figurnov, Mohamed and Mnih 2018, implicit reparameterisation). The values returned are z's own.
    """
    columns: list[Tensor] = []
    log_posterior = log_weights  # of the components, given the coordinates so far
    for i in range(z.shape[-1]):
        value = z[..., i : i + 1].detach()
        posterior = log_posterior.softmax(-1)
        t = (value - loc[..., i]) * torch.exp(-log_scale[..., i])
        distribution = (posterior * torch.special.ndtr(t)).sum(-1, keepdim=True)
        with torch.no_grad():
            kernel = torch.exp(-0.5 * t.square() - log_scale[..., i] - _HALF_LOG_2PI)
            density = (posterior * kernel).sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        moving = value - (distribution - distribution.detach()) / density
        columns.append(moving)
        t = (moving - loc[..., i]) * torch.exp(-log_scale[..., i])
        log_posterior = log_posterior - 0.5 * t.square() - log_scale[..., i]
    return torch.cat(columns, -1)


def straight_through_mixture(
    log_weights: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    n: int,
    temperature: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n exact samples (B, n, d) of mixtures (B, 1, K), (B, 1, K, d), by hard Gumbel weights with a soft gradient.

    The gradient is exact for the components drawn and **biased** for the weights.
    """
    B, _, K = log_weights.shape
    tiny = torch.finfo(loc.dtype).tiny
    gumbel = -torch.log((-torch.log(noise.uniform((B, n, K), loc, generator).clamp_min(tiny))).clamp_min(tiny))
    soft = ((log_weights + gumbel) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    chosen = hard + soft - soft.detach()
    normal = noise.normal((B, n, 1, loc.shape[-1]), loc, generator)
    return (chosen[..., None] * (loc + normal * torch.exp(log_scale))).sum(-2)
