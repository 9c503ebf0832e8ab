"""Normalised plus reverse cross-entropy."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.losses.label_linear import LabelLinearLoss


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
        active = log_p / log_p.sum(1, keepdim=True)
        return self.alpha * active - self.beta * self.log_zero * (1 - log_p.exp())
