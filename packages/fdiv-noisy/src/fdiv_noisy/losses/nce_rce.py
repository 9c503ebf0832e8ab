"""Normalised plus reverse cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.losses.label_linear import LabelLinearLoss

HUGE = 1e30  # in place of infinity, whose gradient is none


class NCERCELoss(LabelLinearLoss):
    r"""Normalised plus reverse cross-entropy (Ma et al. 2020): $\alpha \log p_y / \sum_k \log p_k + \beta RCE$.

    Args:
        alpha: Weight of the normalised (active) part.
        beta: Weight of the reverse (passive) part.
        log_zero: What stands for log 0 in reverse cross-entropy.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, log_zero: float = -4.0, **options) -> None:
        super().__init__(**options)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return self._of(log_p, log_p)

    def label_values(self, log_p: Tensor, hard: Tensor) -> Tensor:
        """(N,)."""
        return self._of(log_p.gather(1, hard[:, None]), log_p)[:, 0]

    def _of(self, own: Tensor, log_p: Tensor) -> Tensor:
        """The loss of labels with log-probabilities `own` (N, M). Masked classes (logit -inf) are no classes here."""
        total = log_p.masked_fill(log_p.isneginf(), 0.0).sum(1, keepdim=True)
        active = own.clamp_min(-HUGE) / total.clamp_max(-torch.finfo(total.dtype).tiny)
        return self.alpha * active - self.beta * self.log_zero * (1 - own.exp())
