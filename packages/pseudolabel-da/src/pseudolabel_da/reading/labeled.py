"""A batch of samples with labels, and what turns logits and labels into a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]


class Labeled(NamedTuple):
    """Samples and their labels.

    Attributes:
        inputs: (B, ...).
        labels: (B,) class indices.
        weight: (B,) weights of their losses, or None.
    """

    inputs: Tensor
    labels: Tensor
    weight: Tensor | None = None
