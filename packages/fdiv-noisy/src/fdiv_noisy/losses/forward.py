"""Forward correction: the prediction passes through the noise."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.losses.label_linear import LabelLinearLoss
from fdiv_noisy.transition import Transition, as_matrix

FLOOR = 1e-7  # smallest probability whose logarithm is taken where the published losses clamp


class ForwardCorrection(LabelLinearLoss):
    r"""Forward correction $-\log (T^\top p)_{\tilde y}$ (Patrini et al. 2017).

    Args:
        transition: A noise model, or a row-stochastic (K, K) matrix.
        options: Those of every loss here; `weight` and `label_smoothing` are of the noisy label.
    """

    matrix: Tensor

    def __init__(self, transition: Transition, **options) -> None:
        super().__init__(**options)
        self.register_buffer("matrix", as_matrix(transition))

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -(log_p.exp() @ self.matrix.to(log_p)).clamp_min(FLOOR).log()
