"""The augmenter of the paper: a conditional normalizing flow over the transforms of every image."""

from __future__ import annotations

import torch
from torch import Tensor

from flowaug.augmenter.encoder import EncodedAugmenter, Encoder
from flowaug.flows import ConditionalFlow, FlowSpec
from flowaug.spaces import Space


class FlowAugmenter(EncodedAugmenter):
    """A conditional normalizing flow over the transforms of every image (Singhal et al. 2023).

    Args:
        space: The transforms, such as `flowaug.AffineSpace()`.
        encoder: `simple`, the paper's five-layer network; a module from images (B, C, H, W) to (B, context_dim); or
            None for one distribution for all images.
        flow: What the flow is made of.
        in_channels: Of the images, for the simple encoder.
        context_dim: Size of the encoder's output; 32 for the simple one.

    Raises:
        ValueError: The encoder is unknown or its size missing.

    Example:
        >>> augmenter = FlowAugmenter(AffineSpace(("tx", "ty", "rot")), flow=FlowSpec(layers=4))
        >>> images, w, log_prob = augmenter(torch.rand(8, 3, 32, 32), n=5)
    """

    def __init__(
        self,
        space: Space,
        encoder: Encoder = "simple",
        flow: FlowSpec | None = None,
        *,
        in_channels: int = 3,
        context_dim: int | None = None,
    ) -> None:
        super().__init__(space, encoder, in_channels=in_channels, context_dim=context_dim)
        self.flow = ConditionalFlow(space.dim, self.context_dim, flow or FlowSpec(), space.periodic)

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        return self.flow.sample(self.encode(x), n, generator)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`: the exact density, anywhere in the box."""
        return self.flow.log_prob(w, self.encode(x))
