"""Peer loss."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.labels import Labels, pair_scale, rolled
from fdiv_noisy.losses.label_linear import LabelLinearLoss


class PeerLoss(LabelLinearLoss):
    r"""Peer loss $CE(x, \tilde y) - \alpha\, CE(x^\dagger, y^\circ)$ (Liu and Guo 2020).

    The peer label is that of another sample of the batch (one random cyclic shift a call), which is unbiased and needs
    no second forward pass. Cross-entropy is $-\log(p + \epsilon)$, without which the peer term has no bound.

    Args:
        alpha: Weight of the peer term; may be set between calls, as the authors do on MNIST under uniform noise:
            `fdiv_noisy.piecewise_linear([(120, 0.0), (300, 1.0)])` of the epoch.
        eps: Floor under the probability.
        generator: A CPU generator for the shifts.
    """

    def __init__(
        self, alpha: float = 1.0, eps: float = 1e-5, generator: torch.Generator | None = None, **options
    ) -> None:
        super().__init__(**options)
        self.alpha, self.eps, self.generator = alpha, eps, generator

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -(log_p.exp() + self.eps).log()

    def plain_values(self, logits: Tensor, hard: Tensor) -> Tensor:
        """(N,)."""
        log_p = logits.log_softmax(1)
        if len(hard) < 2:
            return self.label_values(log_p, hard)
        labels = torch.stack([hard, rolled(hard, self._shift(len(hard)))], 1)
        own, peer = self.class_values(log_p.gather(1, labels)).unbind(1)
        return own - self.alpha * peer

    def sample_values(self, log_p: Tensor, labels: Labels) -> Tensor:
        """(N,)."""
        n = labels.weight.numel()
        peers = labels.rolled(self._shift(n))
        scale = labels.weight * (pair_scale(labels.weight) * (n - 1))
        return super().sample_values(log_p, labels) - self.alpha * scale * super().sample_values(log_p, peers)

    def _shift(self, n: int) -> Tensor:
        return torch.randint(1, max(n, 2), (), generator=self.generator)
