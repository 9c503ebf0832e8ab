"""Augerino (Benton et al. 2020): one uniform range per coordinate, shared by all images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowaug.augmenter import Augmenter
from flowaug.flows.uniform import draw_uniform, uniform_log_prob
from flowaug.spaces import Space


class AugerinoAugmenter(Augmenter):
    """w uniform in ±softplus(r)/2 per coordinate, with learned r.

    The same distribution as a `FlowAugmenter` without encoder, layers and box over a uniform base.

    Args:
        space: The transforms. Ranges may leave the box; a range of 2 is the whole of it.
        width: Initial range of every coordinate.

    Raises:
        ValueError: `width` is not positive.
    """

    def __init__(self, space: Space, width: float = 0.5) -> None:
        super().__init__(space)
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        start = torch.tensor(float(width)).expm1().log()  # the inverse of softplus
        self.raw = nn.Parameter(start.repeat(space.dim))

    @property
    def width(self) -> Tensor:
        """Ranges (d,)."""
        return F.softplus(self.raw)

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        width = self.width.expand(x.shape[0], -1)
        return draw_uniform(torch.zeros_like(width), width, n, generator)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`; -inf outside the ranges."""
        return uniform_log_prob(w, torch.zeros_like(self.width), self.width)

    def width_loss(self, largest: float = 10.0) -> Tensor:
        """Augerino's own regulariser -|width|, to be weighted (0.01) and added; 0 once a range reaches `largest`."""
        norm = self.width.norm()
        return torch.where((self.width < largest).all(), -norm, torch.zeros_like(norm))
