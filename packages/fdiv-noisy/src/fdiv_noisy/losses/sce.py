"""Symmetric cross-entropy."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.losses.label_linear import OwnProbabilityLoss


class SCELoss(OwnProbabilityLoss):
    r"""Symmetric cross-entropy $\alpha CE + \beta RCE$ (Wang et al. 2019).

    Args:
        alpha: Weight of cross-entropy.
        beta: Weight of reverse cross-entropy.
        log_zero: What stands for log 0 in reverse cross-entropy, whose value is $-(1 - p_y)$ times it.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0, **options) -> None:
        super().__init__(**options)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -self.alpha * log_p - self.beta * self.log_zero * (1 - log_p.exp())
