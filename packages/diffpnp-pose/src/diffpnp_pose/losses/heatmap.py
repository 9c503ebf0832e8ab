"""The loss of heat-maps."""

from __future__ import annotations

from torch import Tensor


def heatmap_loss(heatmaps: Tensor, targets: Tensor) -> Tensor:
    """`l_h`: mean absolute difference of maps, after the softmax.

    Args:
        heatmaps: predicted maps, `(B, J, H, W)`.
        targets: target maps of the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.
    """
    if heatmaps.shape != targets.shape:
        raise ValueError(f"heatmaps {tuple(heatmaps.shape)} and targets {tuple(targets.shape)} differ in shape")
    return (heatmaps - targets).abs().mean()
