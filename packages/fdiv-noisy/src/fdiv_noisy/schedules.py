"""What changes between epochs: the loss (warm-up) and the weight of a term (ramps)."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn


class WarmUp(nn.Module):
    """One loss for the first epochs, another after.

    The epoch is set by the caller (`criterion.set_epoch(epoch)` before each), so that a resumed run needs no state.

    Args:
        first: The loss of the first epochs, such as `nn.CrossEntropyLoss()`.
        then: The loss after them.
        epochs: How many epochs `first` lasts.
    """

    def __init__(self, first: nn.Module, then: nn.Module, epochs: int) -> None:
        super().__init__()
        if epochs < 0:
            raise ValueError(f"epochs must be >= 0, got {epochs}")
        self.first, self.then, self.epochs = first, then, epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch runs, from 0."""
        self.epoch = epoch

    def forward(self, logits: Tensor, targets: Tensor, **peers: Tensor) -> Tensor:
        """The loss of the epoch that runs; `peers` go to the second loss only."""
        return self.first(logits, targets) if self.epoch < self.epochs else self.then(logits, targets, **peers)


def piecewise_linear(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """A function through the given (epoch, value) points, straight between them and constant outside.

    Raises:
        ValueError: There are no points, or their epochs do not increase.
    """
    epochs = [epoch for epoch, _ in points]
    if not points or any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
        raise ValueError(f"points must be (epoch, value) with increasing epochs, got {list(points)}")

    def value(epoch: float) -> float:
        place = bisect.bisect_right(epochs, epoch)
        if place == 0 or place == len(points):
            return points[min(place, len(points) - 1)][1]
        (e0, v0), (e1, v1) = points[place - 1], points[place]
        return v0 + (v1 - v0) * (epoch - e0) / (e1 - e0)

    return value
