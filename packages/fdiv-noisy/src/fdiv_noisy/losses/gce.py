"""Generalised cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.losses.label_linear import OwnProbabilityLoss


class GCELoss(OwnProbabilityLoss):
    r"""Generalised cross-entropy $(1 - p_y^q) / q$ (Zhang and Sabuncu 2018): q -> 0 is CE, q = 1 half of MAE.

    Args:
        q: In (0, 1]; 0.7 in the paper.
    """

    def __init__(self, q: float = 0.7, **options) -> None:
        super().__init__(**options)
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        self.q = q

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return torch.expm1(self.q * log_p) / -self.q
