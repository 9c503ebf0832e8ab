"""The probabilistic spatial transformer (Schwöbel et al. 2022): Student's t transforms with a prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Gamma, StudentT, kl_divergence

from flowaug.augmenter import EncodedAugmenter, Encoder
from flowaug.flows.layer import faint_linear
from flowaug.flows.noise import normal
from flowaug.spaces import Space


class PSTNAugmenter(EncodedAugmenter):
    r"""w = mu(x) + noise of an unknown precision, $\tau \sim \mathrm{Gamma}(a, b(x))$: a Student's t of 2 a degrees of
    freedom, location mu(x) and scale $\sqrt{b(x) / a}$ per coordinate.

    Transforms are not kept in the box. Train with the cross-entropy of the mean probability (`aggregate="prob_mean"`,
    `alpha=0`) plus `kl_to_prior(x).mean()` at a small weight.

    Args:
        space: The transforms.
        encoder: As in `FlowAugmenter`.
        in_channels: Of the images.
        context_dim: Size of the encoder's output.
        shape: a, above 0.
        scale: Initial and prior scale of the transforms.

    Raises:
        ValueError: `shape` or `scale` is not positive.
    """

    def __init__(
        self,
        space: Space,
        encoder: Encoder = "simple",
        *,
        in_channels: int = 3,
        context_dim: int | None = None,
        shape: float = 2.0,
        scale: float = 0.1,
    ) -> None:
        super().__init__(space, encoder, in_channels=in_channels, context_dim=context_dim)
        if shape <= 0 or scale <= 0:
            raise ValueError(f"shape and scale must be positive, got {shape} and {scale}")
        self.shape, self.prior_rate = shape, shape * scale**2
        self.head = faint_linear(self.context_dim, 2 * space.dim)
        nn.init.constant_(self.head.bias[space.dim :], math.log(self.prior_rate))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Locations mu(x) and rates b(x), (B, d) each."""
        mu, log_rate = self.head(self.encode(x)).chunk(2, -1)
        return mu, log_rate.exp()

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        mu, rate = (value[:, None] for value in self.posterior(x))
        size = (x.shape[0], n, self.space.dim)
        gamma = torch._standard_gamma(torch.full(size, self.shape, dtype=mu.dtype, device=mu.device), generator)
        draws = normal(size, mu, generator)
        w = mu + draws * torch.sqrt(rate / gamma)
        return w, self._density(mu, rate, w)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`."""
        mu, rate = (value[:, None] for value in self.posterior(x))
        return self._density(mu, rate, w)

    def _density(self, mu: Tensor, rate: Tensor, w: Tensor) -> Tensor:
        student = StudentT(2 * self.shape, mu, (rate / self.shape).sqrt(), validate_args=False)
        return student.log_prob(w).sum(-1)

    def kl_to_prior(self, x: Tensor) -> Tensor:
        """KL (B,) of the precision's posterior Gamma(a, b(x)) to its prior Gamma(a, b0), summed over coordinates."""
        _, rate = self.posterior(x)
        shape = torch.full_like(rate, self.shape)
        prior = torch.full_like(rate, self.prior_rate)
        return kl_divergence(Gamma(shape, rate), Gamma(shape, prior)).sum(-1)
