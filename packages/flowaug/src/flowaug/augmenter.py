"""Augmenters: a distribution of transforms per image, sampled, warped by and measured exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from flowaug.flows import ConditionalFlow, FlowSpec
from flowaug.networks.simple_conv import SimpleConv
from flowaug.pose_alignment import Alignment, align
from flowaug.spaces import Space


class AugOutput(NamedTuple):
    """Augmented images with where they come from."""

    images: Tensor
    """Views (B, S, C, H, W)."""
    w: Tensor
    """Parameters of their transforms (B, S, d)."""
    log_prob: Tensor
    """Their log-densities (B, S), in nats per unit of w."""


class Augmenter(nn.Module, ABC):
    """A distribution g(w; x) over the transforms of a space: what flows, Augerino and the others have in common.

    A subclass gives `sample` and `log_prob`.

    Args:
        space: The transforms.
    """

    discrete = False
    """Whether transforms come from a finite set, so that only the score function tells what they are worth."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space

    @abstractmethod
    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n transforms per image.

        Args:
            x: Images (B, C, H, W).
            n: S.
            generator: On the device of `x`.

        Returns:
            w (B, S, d) with its pathwise gradient, and log-densities (B, S).
        """

    @abstractmethod
    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """Log-densities (B, S) of transforms w (B, S, d) of images x (B, C, H, W)."""

    def warp(self, x: Tensor, w: Tensor) -> Tensor:
        """Images (B, C, H, W) under w (B, S, d), as (B, S, C, H, W)."""
        return self.space.warp(x, w)

    def forward(self, x: Tensor, n: int = 1, generator: torch.Generator | None = None) -> AugOutput:
        """n augmented views of every image, with parameters and log-densities."""
        w, log_prob = self.sample(x, n, generator)
        return AugOutput(self.warp(x, w), w, log_prob)

    def entropy(self, x: Tensor, n: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """Monte Carlo entropy (B,) of every image's distribution in nats, by n samples; d log 2 is the whole box."""
        return -self.sample(x, n, generator)[1].mean(-1)

    def align(
        self,
        x: Tensor,
        steps: int = 50,
        gamma: float = 0.1,
        n: int = 100,
        compose: Literal["group", "lie"] = "group",
        generator: torch.Generator | None = None,
    ) -> Alignment:
        """Images moved to the nearby mode of their distribution by mean-shift; see `flowaug.pose_alignment.align`."""
        return align(self.sample, self.space, x, steps, gamma, n, compose, generator)


class Unconditional(nn.Module):
    """An encoder that sees nothing: zeros (B, 1), so that every image has the same distribution."""

    def forward(self, images: Tensor) -> Tensor:
        """Zeros (B, 1)."""
        return images.new_zeros(len(images), 1)


def make_encoder(
    encoder: Literal["simple"] | nn.Module | None, in_channels: int, context_dim: int | None
) -> tuple[nn.Module, int]:
    """An encoder of images and the size of what it gives: a small network, one given, or none.

    Raises:
        ValueError: The name is unknown, or `context_dim` is missing for a network given.
    """
    if encoder is None:
        return Unconditional(), 1
    if isinstance(encoder, nn.Module):
        if context_dim is None:
            raise ValueError("give context_dim, the size of the encoder's output, together with an encoder of your own")
        return encoder, context_dim
    if encoder != "simple":
        raise ValueError(f"encoder must be 'simple', a module or None, got {encoder!r}")
    size = 32 if context_dim is None else context_dim
    return SimpleConv(in_channels, size, 8), size


class FlowAugmenter(Augmenter):
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
        encoder: Literal["simple"] | nn.Module | None = "simple",
        flow: FlowSpec | None = None,
        *,
        in_channels: int = 3,
        context_dim: int | None = None,
    ) -> None:
        super().__init__(space)
        self.encoder, size = make_encoder(encoder, in_channels, context_dim)
        self.flow = ConditionalFlow(space.dim, size, flow or FlowSpec(), space.periodic)

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `Augmenter.sample`."""
        return self.flow.sample(self.encoder(x), n, generator)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """See `Augmenter.log_prob`: the exact density, anywhere in the box."""
        return self.flow.log_prob(w, self.encoder(x))
