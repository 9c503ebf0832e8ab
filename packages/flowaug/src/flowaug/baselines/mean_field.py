"""InstaAug with the mean-field parametrisation (Miao et al. 2022): a uniform range per image and coordinate."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from flowaug.augmenter import Augmenter, make_encoder
from flowaug.spaces import Space


class MeanFieldAugmenter(Augmenter):
    """w uniform between two ends per coordinate that an encoder reads from the image, -sigmoid(l) and sigmoid(r).

    Coordinates are independent given the image: no joint or multi-modal distribution can be represented.

    Args:
        space: The transforms.
        encoder: As in `FlowAugmenter`.
        in_channels: Of the images.
        context_dim: Size of the encoder's output.
        start: Initial l and r; -2, InstaAug's, gives a quarter of the box.
    """

    def __init__(
        self,
        space: Space,
        encoder: Literal["simple"] | nn.Module | None = "simple",
        *,
        in_channels: int = 3,
        context_dim: int | None = None,
        start: float = -2.0,
    ) -> None:
        super().__init__(space)
        self.encoder, size = make_encoder(encoder, in_channels, context_dim)
        self.ends = nn.Linear(size, 2 * space.dim)
        with torch.no_grad():
            self.ends.weight.mul_(0.01)
            self.ends.bias.fill_(start)

    def ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper ends (B, d) in [-1, 1] of images x."""
        left, right = torch.sigmoid(self.ends(self.encoder(x))).chunk(2, -1)
        return -left, right

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        low, high = (end[:, None] for end in self.ranges(x))
        u = torch.rand(len(x), n, self.space.dim, dtype=low.dtype, device=low.device, generator=generator)
        return low + u * (high - low), -(high - low).log().sum(-1).expand(-1, n)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`; -inf outside the ranges."""
        low, high = (end[:, None] for end in self.ranges(x))
        inside = ((w >= low) & (w <= high)).all(-1)
        return torch.where(inside, -(high - low).log().sum(-1), -torch.inf)
