"""The mixture of the losses, with its weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from diffpnp_pose.losses.heatmap import heatmap_loss
from diffpnp_pose.losses.pose import projection_loss


class MixtureLoss(nn.Module):
    """`l_m = l_h + beta l_proj`.

    The right beta depends on the maps' resolution (`l_h` is a mean over cells) and on the image's size. With
    `beta="auto"` it is the ratio of the two gradients' norms, with respect to the predicted maps, on the first batch
    that is seen with gradients; both terms then pull equally at first. A batch without a valid pose measures nothing,
    and its loss is that of the heat-maps alone. The value is kept in the state dict.

    Args:
        beta: 1e-5, the paper's value; any positive number; or "auto".
    """

    beta: Tensor

    def __init__(self, beta: float | Literal["auto"] = 1e-5) -> None:
        super().__init__()
        if beta != "auto" and not (isinstance(beta, float | int) and beta > 0):
            raise ValueError(f'beta must be a positive number or "auto", got {beta!r}')
        self.register_buffer("beta", torch.tensor(torch.nan if beta == "auto" else float(beta)))
        self._measured = beta != "auto"  # a flag on the host, so that no step waits for the device
        self.register_load_state_dict_post_hook(self._loaded)

    def forward(
        self, heatmaps: Tensor, targets: Tensor, projected: Tensor, points: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            heatmaps: predicted maps, `(B, J, H, W)`.
            targets: target maps, `(B, J, H, W)`.
            projected: `pi(z | y, K)` in pixels, `(B, n, 2)`.
            points: true image points, `(B, n, 2)`.
            valid: items whose pose counts, `(B,)`.

        Returns:
            A scalar.
        """
        first, second = heatmap_loss(heatmaps, targets), projection_loss(projected, points, valid)
        if not self._measured:
            self._measure(first, second, heatmaps)
        # the buffer says it too: where several processes train, that of the first replaces the others' in every step
        beta = torch.where(self.beta.isfinite(), self.beta, 0.0)
        return first + beta.to(first.dtype) * second

    def _measure(self, first: Tensor, second: Tensor, heatmaps: Tensor) -> None:
        """Set beta from the first batch; without gradients there is nothing to balance."""
        if not (torch.is_grad_enabled() and heatmaps.requires_grad):
            raise ValueError('beta="auto" is measured on a training batch: call the loss with gradients enabled first')
        a, b = (torch.autograd.grad(loss, heatmaps, retain_graph=True)[0].norm() for loss in (first, second))
        self.beta.copy_(torch.where(b > 0, a / b, torch.nan))
        self._measured = bool(self.beta.isfinite() and self.beta > 0)

    @staticmethod
    def _loaded(loss: MixtureLoss, _: object) -> None:
        loss._measured = bool(loss.beta.isfinite())
