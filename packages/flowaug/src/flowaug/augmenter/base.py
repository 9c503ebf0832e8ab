"""Augmenters: a distribution of transforms per image, sampled, warped by and measured exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowaug.augmenter.alignment import align
from flowaug.spaces import Space, check_images


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

    coordinates: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        names = ",".join(space.names).encode()  # in the state: the weights belong to these coordinates
        self.register_buffer("coordinates", torch.tensor(list(names), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_check_coordinates)

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
        """n augmented views of every image, with parameters and log-densities.

        Raises:
            ValueError: x are no images (B, C, H, W) of a floating type, or n is below 1.
        """
        check_images(x)
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        w, log_prob = self.sample(x, n, generator)
        return AugOutput(self.warp(x, w), w, log_prob)

    def entropy(self, x: Tensor, n: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """Monte Carlo entropy (B,) of every image's distribution in nats, by n samples; d log 2 is the whole box."""
        return -self.sample(x, n, generator)[1].mean(-1)

    align = align


def _check_coordinates(augmenter: Augmenter, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before a state is loaded: refuse that of other coordinates; a former state names none."""
    own, key = augmenter.coordinates, f"{prefix}coordinates"
    held = state.setdefault(key, own)
    if not torch.equal(held.cpu(), own.cpu()):
        names = [bytes(value.tolist()).decode(errors="replace") for value in (held.cpu(), own.cpu())]
        rest[-1].append(f"the state is of an augmenter over {names[0]}, this one is over {names[1]}.")
        state[key] = own
