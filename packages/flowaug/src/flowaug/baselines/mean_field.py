"""InstaAug with the mean-field parametrisation (Miao et al. 2022): a uniform range per image and coordinate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowaug.augmenter import EncodedAugmenter, Encoder
from flowaug.flows.layer import faint_linear
from flowaug.flows.uniform import draw_uniform, uniform_log_prob
from flowaug.spaces import Space


class MeanFieldAugmenter(EncodedAugmenter):
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
        encoder: Encoder = "simple",
        *,
        in_channels: int = 3,
        context_dim: int | None = None,
        start: float = -2.0,
    ) -> None:
        super().__init__(space, encoder, in_channels=in_channels, context_dim=context_dim)
        self.ends = faint_linear(self.context_dim, 2 * space.dim)
        nn.init.constant_(self.ends.bias, start)

    def ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper ends (B, d) in [-1, 1] of images x."""
        left, right = torch.sigmoid(self.ends(self.encode(x))).chunk(2, -1)
        return -left, right

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        low, high = self.ranges(x)
        return draw_uniform((low + high) / 2, high - low, n, generator)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`; -inf outside the ranges."""
        low, high = (end[:, None] for end in self.ranges(x))
        return uniform_log_prob(w, (low + high) / 2, high - low)
