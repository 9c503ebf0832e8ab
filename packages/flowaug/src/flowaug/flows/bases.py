"""Base distributions given a context: mixture of Gaussians, uniform and Student's t.

Each is a normflows `BaseDistribution`. `draw(context, n)` gives n samples per context with their exact log-densities;
`log_prob(z, context)` is the same density, anywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from normflows.distributions import BaseDistribution
from torch import Tensor, nn

from flowaug.flows import fused, noise
from flowaug.flows.fused_mixture import ImplicitMixture
from flowaug.flows.layer import faint_linear, soft_clamp
from flowaug.flows.mixture import draw_components, implicit_mixture, mixture_log_prob, straight_through_mixture
from flowaug.flows.uniform import draw_uniform, uniform_log_prob

WeightGradient = Literal["implicit", "straight_through"]


class ConditionalBase(BaseDistribution, ABC):
    """A distribution of locations and log-scales: free parameters plus a linear function of the context.

    Args:
        dim: d.
        context_dim: E.
        components: K.
        extra: Numbers per component beyond 2 d.
        scale: Initial scale.
        spread: Initial locations are uniform in (-spread, spread).
        log_scales: Range of the log-scale, entered smoothly.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        components: int = 1,
        extra: int = 0,
        *,
        scale: float = 0.1,
        spread: float = 0.0,
        log_scales: tuple[float, float] = (-6.0, 1.0),
    ) -> None:
        super().__init__()
        low, high = log_scales
        if not math.exp(low) < scale < math.exp(high):
            raise ValueError(f"the initial scale must be in ({math.exp(low):.3g}, {math.exp(high):.3g}), got {scale}")
        self.dim, self.components, self.extra, self.log_scales = dim, components, extra, log_scales
        self.context = faint_linear(context_dim, components * (2 * dim + extra), bias=False)
        middle, half = (low + high) / 2, (high - low) / 2
        start = torch.zeros(components, 2 * dim + extra)
        start[:, :dim] = (2 * torch.rand(components, dim) - 1) * spread
        start[:, dim : 2 * dim] = middle + half * math.atanh((math.log(scale) - middle) / half)
        self.free = nn.Parameter(start)

    def parameters_of(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Locations and log-scales (..., K, d), and whatever else (..., K, extra), of contexts (..., E)."""
        return self._read(self._raw(context))

    def _raw(self, context: Tensor) -> Tensor:
        """Numbers (..., K, 2 d + extra) of contexts (..., E)."""
        raw = F.linear(context, self.context.weight, self.free.flatten())
        return raw.unflatten(-1, (self.components, -1))

    def _read(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What such numbers mean: locations, log-scales, and the others."""
        loc, log_scale, rest = raw.split([self.dim, self.dim, self.extra], -1)
        return loc, soft_clamp(log_scale, *self.log_scales), rest

    @abstractmethod
    def draw(self, context: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n samples per context (B, E): z (B, n, d), with gradient, and log-densities (B, n)."""

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log-densities (...) of z (..., d) given contexts (..., E) that broadcast against it."""

    def forward(self, num_samples: int = 1, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """normflows's way of sampling: one z (N, d) and log-density (N,) per context (N, E), num_samples being N.

        Raises:
            ValueError: The number of contexts is another.
        """
        if context is None or len(context) != num_samples:
            raise ValueError(f"expected one context per sample, ({num_samples}, E): repeat contexts for more samples")
        z, log_prob = self.draw(context, 1)
        return z[:, 0], log_prob[:, 0].clone()  # normflows changes it in place


class MixtureBase(ConditionalBase):
    r"""$\sum_k \pi_k N(z; \mu_k, \mathrm{diag}\, \sigma_k^2)$, its weights, locations and scales given the context.

    Samples are exact: a component is drawn, then a Gaussian. (The published soft Gumbel weights mix locations of
    different components, so that samples fall between the modes.) Log-densities are exact too.

    Args:
        dim: d.
        context_dim: E.
        components: K.
        scale: Initial scale.
        spread: Initial locations are uniform in (-spread, spread).
        gradient: Of samples with respect to the parameters. `implicit` reparameterisation is unbiased for all of
            them, weights included (Figurnov et al. 2018). `straight_through`, as published with hard Gumbel samples,
            is biased for the weights (it takes the finite step between components for a slope) and exact for the rest.
        temperature: Of the straight-through gradient.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        components: int = 10,
        *,
        scale: float = 0.1,
        spread: float = 0.2,
        gradient: WeightGradient = "implicit",
        temperature: float = 0.1,
    ) -> None:
        super().__init__(dim, context_dim, components, 1, scale=scale, spread=spread)
        if gradient not in ("implicit", "straight_through"):
            raise ValueError(f"gradient must be implicit or straight_through, got {gradient!r}")
        self.gradient, self.temperature = gradient, temperature

    def draw(self, context: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `ConditionalBase.draw`."""
        raw = self._raw(context)
        if self.gradient == "straight_through":
            log_weights, loc, log_scale = (value[:, None] for value in self._mixture(raw))
            z = straight_through_mixture(log_weights, loc, log_scale, n, self.temperature, generator)
            return z, mixture_log_prob(z, log_weights, loc, log_scale)
        with torch.no_grad():
            log_weights, loc, log_scale = self._mixture(raw)
            z = draw_components(log_weights, loc, log_scale, n, generator)
        if n > 0 and torch.is_grad_enabled() and fused.usable():
            parts = (self._moving, self.log_scales, z, raw, loc, log_scale, log_weights)
            return ImplicitMixture.apply(*parts)  # pyright: ignore[reportReturnType]
        return self._moving(z, raw)

    def _mixture(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (..., K), locations and log-scales (..., K, d)."""
        loc, log_scale, logits = self._read(raw)
        return logits[..., 0].log_softmax(-1), loc, log_scale

    def _moving(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Samples z (B, n, d) of the mixtures of raw numbers, with their gradient, and their log-densities."""
        parameters = [value[:, None] for value in self._mixture(raw)]
        if torch.is_grad_enabled():
            z = implicit_mixture(z, *parameters)
        return z, mixture_log_prob(z, *parameters)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """See `ConditionalBase.log_prob`."""
        return mixture_log_prob(z, *self._mixture(self._raw(context)))


class UniformBase(ConditionalBase):
    """Uniform on the box of centre `loc` and sides exp(log-scale); the log-density outside it is -inf.

    With no layers above and no tanh it is the distribution of Augerino, given the context that of InstaAug.
    The arguments are those of `ConditionalBase`.
    """

    def __init__(self, dim: int, context_dim: int, *, scale: float = 0.5, spread: float = 0.0) -> None:
        super().__init__(dim, context_dim, scale=scale, spread=spread, log_scales=(-7.0, 3.0))

    def draw(self, context: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `ConditionalBase.draw`."""
        centre, width = self._box(context)
        return draw_uniform(centre, width, n, generator)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """See `ConditionalBase.log_prob`."""
        return uniform_log_prob(z, *self._box(context))

    def _box(self, context: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale, _ = (value[..., 0, :] for value in self.parameters_of(context))
        return loc, log_scale.exp()


class StudentTBase(ConditionalBase):
    """Independent Student's t coordinates with location, scale and degrees of freedom (1 up to 100) given the context.

    The heavy-tailed posterior of probabilistic spatial transformers. All gradients are pathwise and unbiased.

    Args:
        dim: d.
        context_dim: E.
        scale: Initial scale.
        spread: Initial locations are uniform in (-spread, spread).
    """

    def __init__(self, dim: int, context_dim: int, *, scale: float = 0.1, spread: float = 0.0) -> None:
        super().__init__(dim, context_dim, 1, dim, scale=scale, spread=spread)

    def _student(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, log_scale, raw = (value[..., 0, :] for value in self.parameters_of(context))
        return loc, log_scale, torch.exp(soft_clamp(raw + 1.5, 0.0, math.log(100)))

    def draw(self, context: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `ConditionalBase.draw`."""
        loc, log_scale, freedom = (value[:, None] for value in self._student(context))
        shape = (context.shape[0], n, self.dim)
        normal = noise.normal(shape, loc, generator)
        gamma = torch._standard_gamma((freedom / 2).expand(shape), generator)
        t = normal * torch.rsqrt(2 * gamma / freedom)
        return loc + t * torch.exp(log_scale), _student_log_prob(t, log_scale, freedom)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """See `ConditionalBase.log_prob`."""
        loc, log_scale, freedom = self._student(context)
        return _student_log_prob((z - loc) * torch.exp(-log_scale), log_scale, freedom)


def _student_log_prob(t: Tensor, log_scale: Tensor, freedom: Tensor) -> Tensor:
    """Sum over coordinates of the log-density at loc + t * scale."""
    normaliser = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * torch.log(math.pi * freedom)
    return (normaliser - log_scale - (freedom + 1) / 2 * torch.log1p(t.square() / freedom)).sum(-1)
