"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor

from fdiv_noisy.losses.label_linear import OwnProbabilityLoss


class MAELoss(OwnProbabilityLoss):
    r"""Mean absolute error $\lVert e_y - p \rVert_1 = 2 - 2 p_y$ (Ghosh et al. 2017)."""

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return 2 - 2 * log_p.exp()
