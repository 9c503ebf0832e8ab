"""What changes in the course of training: the loss (warm-up) and the weight of a term (ramps)."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CALLS_AN_EPOCH = 1000  # where nobody says what an epoch is


class WarmUp(nn.Module):
    """One loss first, another after.

    It ends by itself: in training mode it counts the calls that have gradients. A caller that knows better says the
    epoch with `set_epoch`, before each one; then nothing is counted, and a resumed run needs no state.

    Args:
        first: The loss at the start, such as `nn.CrossEntropyLoss()`.
        then: The loss after it.
        epochs: How many epochs `first` lasts; may be a part of one where `samples` is given.
        samples: Size of the training set. With it an epoch has passed when so many labels were seen, over all processes
            together. Without it, and without `set_epoch`, an epoch is taken to be 1,000 calls, and a warning says so.
        steps: How many calls `first` lasts, in place of `epochs`.

    Raises:
        ValueError: A number is negative, or both or none of `epochs` and `steps` are given.

    Example:
        >>> criterion = WarmUp(nn.CrossEntropyLoss(), nn.MultiMarginLoss(), epochs=1, samples=50_000)
    """

    def __init__(
        self,
        first: nn.Module,
        then: nn.Module,
        epochs: float | None = None,
        *,
        samples: int | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("epochs", epochs), ("samples", samples), ("steps", steps)):
            if value is not None and value < 0:
                raise ValueError(f"{name} must be >= 0, got {value}")
        if (epochs is None) == (steps is None):
            raise ValueError(f"WarmUp takes epochs or steps, got epochs={epochs} and steps={steps}")
        self.first, self.then = first, then
        self.epochs, self.samples, self.steps = epochs, samples, steps
        self.epoch: int | None = None
        self.calls = self.seen = 0
        self.warming = bool(epochs or steps)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch runs, from 0. Without effect where `steps` are counted."""
        self.epoch = epoch
        if self.epochs is not None:
            self.warming = epoch < self.epochs

    def forward(self, logits: Tensor, targets: Tensor, **peers: Tensor) -> Tensor:
        """The loss that is due; `peers` go to the second loss only."""
        if not self.warming:
            return self.then(logits, targets, **peers)
        loss = self.first(logits, targets)
        if self.training and torch.is_grad_enabled() and (self.epoch is None or self.steps is not None):
            self._count(logits)
        return loss

    def _count(self, logits: Tensor) -> None:
        self.calls += 1
        self.seen += len(logits) if logits.ndim > 1 else 1
        self.warming = not self._over()

    _count._torchdynamo_disable = True  # pyright: ignore  # compiler.disable itself would import the compiler

    def _over(self) -> bool:
        if self.steps is not None:
            return self.calls >= self.steps
        assert self.epochs is not None
        if self.samples is not None:
            processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
            return self.seen * processes >= self.epochs * self.samples
        over = self.calls >= self.epochs * CALLS_AN_EPOCH
        if over:
            warnings.warn(
                f"WarmUp ends after {self.calls} calls, for nobody said how long its {self.epochs:g} epochs are: call "
                "set_epoch before each epoch, or give samples=, the size of the training set, or steps=",
                stacklevel=2,
            )
        return over

    def get_extra_state(self) -> Tensor:
        """What was counted, calls and labels (2,), for checkpoints."""
        return torch.tensor([self.calls, self.seen])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on counting from there."""
        self.calls, self.seen = state.tolist()
        if self.epoch is None and self.calls:
            self.warming = not self._over()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any, **more: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # checkpoints from before it counted
        super()._load_from_state_dict(state_dict, prefix, *rest, **more)


@dataclass(frozen=True)
class PiecewiseLinear:
    """The function that `piecewise_linear` gives.

    Attributes:
        points: (epoch, value) with increasing epochs.
    """

    points: tuple[tuple[float, float], ...]

    def __call__(self, epoch: float) -> float:
        """Its value."""
        place = bisect.bisect_right(self.points, epoch, key=lambda point: point[0])
        if place == 0 or place == len(self.points):
            return self.points[min(place, len(self.points) - 1)][1]
        (e0, v0), (e1, v1) = self.points[place - 1], self.points[place]
        return v0 + (v1 - v0) * (epoch - e0) / (e1 - e0)


def piecewise_linear(points: Sequence[tuple[float, float]]) -> PiecewiseLinear:
    """A function through the given (epoch, value) points, straight between them and constant outside.

    Raises:
        ValueError: There are no points, or their epochs do not increase.
    """
    epochs = [epoch for epoch, _ in points]
    if not points or any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
        raise ValueError(f"points must be (epoch, value) with increasing epochs, got {list(points)}")
    return PiecewiseLinear(tuple(points))
