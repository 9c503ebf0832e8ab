"""Backward correction: the label passes back through the noise."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.labels import check_options
from fdiv_noisy.losses.label_linear import LabelLinearLoss
from fdiv_noisy.transition import Transition, as_matrix, coefficients


class BackwardCorrection(LabelLinearLoss):
    r"""Backward correction $-\sum_j (T^{-1})_{\tilde y j} \log p_j$ (Natarajan et al. 2013; Patrini et al. 2017).

    Unbiased for any invertible T, but unbounded below and of high variance.

    Args:
        transition: A row-stochastic (K, K) matrix or a noise model, taken as its matrix.
        options: Those of every loss here but `weight`. Smoothing spreads the corrected label.
    """

    def __init__(self, transition: Transition, **options) -> None:
        super().__init__(**options)
        check_options(self.reduction, self.label_smoothing, self.weight, corrected=True)
        self.coefficients = coefficients(as_matrix(transition))

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -log_p
