"""Forward correction: the prediction passes through the noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdiv_noisy.losses.label_linear import LabelLinearLoss
from fdiv_noisy.transition import Transition, as_matrix


class ForwardCorrection(LabelLinearLoss):
    r"""Forward correction $-\log (T^\top p)_{\tilde y}$ (Patrini et al. 2017).

    Computed in log space from the label's column of T, $-\log\sum_i e^{\log p_i + \log T_{i\tilde y}}$, so that a
    sample has its gradient however wrong the network is. Soft and smoothed labels need all columns, whose product is
    taken in float64: there the gradient ends where every class that may give a label has less than $10^{-300}$.

    Args:
        transition: A noise model, or a row-stochastic (K, K) matrix.
        options: Those of every loss here; `weight` and `label_smoothing` are of the noisy label.
    """

    matrix: Tensor
    log_columns: Tensor

    def __init__(self, transition: Transition, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("matrix", as_matrix(transition))
        self.register_buffer("log_columns", self.matrix.T.log().contiguous(), persistent=False)

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        wide = torch.float32 if log_p.device.type == "mps" else torch.float64
        noisy = log_p.to(wide).exp() @ self.matrix.to(log_p.device, wide)
        return -noisy.clamp_min(torch.finfo(wide).tiny).log().to(log_p.dtype)

    def label_values(self, log_p: Tensor, hard: Tensor) -> Tensor:
        """(N,)."""
        return -(log_p + self.log_columns.to(log_p).index_select(0, hard)).logsumexp(1)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.log_columns = self.matrix.T.log().contiguous()
