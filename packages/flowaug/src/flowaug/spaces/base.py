"""What a space of transforms gives: its dimension, its periodic coordinates and the transform itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from flowaug.warp import Fill, Mode, Padding


class Space(Protocol):
    """Transforms with parameters w in the box [-1, 1]^d."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates of w."""
        ...

    @property
    def dim(self) -> int:
        """d."""
        ...

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Per coordinate, whether -1 and 1 are the same transform."""
        ...

    def warp(self, images: Tensor, w: Tensor) -> Tensor:
        """Images (B, C, H, W) under w (B, S, d), as (B, S, C, H, W)."""
        ...


class Coordinates:
    """The part of a space of named coordinates that is the same for all: a frozen dataclass with a field `dims`."""

    dims: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates of w."""
        return self.dims

    @property
    def dim(self) -> int:
        """d."""
        return len(self.dims)

    def check_dims(self, known: Collection[str]) -> None:
        """Raise ValueError unless `dims`, made a tuple so that it can be hashed, are different names of `known`."""
        object.__setattr__(self, "dims", tuple(self.dims))
        if not self.dims or not set(self.dims) <= set(known) or len(set(self.dims)) < len(self.dims):
            raise ValueError(f"dims must be different names of {', '.join(known)}, got {self.dims}")


class GeometricSpace(Space, Protocol):
    """A space whose transforms are affine warps, so that masks, points and boxes can follow."""

    @property
    def mode(self) -> Mode:
        """Interpolation."""
        ...

    @property
    def padding(self) -> Padding:
        """What stands outside the image."""
        ...

    @property
    def fill(self) -> Fill:
        """Value outside the image with padding zeros."""
        ...

    @property
    def align_corners(self) -> bool:
        """The convention of the corners, as in `grid_sample`."""
        ...

    def matrix(self, w: Tensor, size: tuple[int, int]) -> Tensor:
        """Sampling matrices (..., 2, 3) of w (..., d) for images (H, W)."""
        ...


def check_parameters(w: Tensor, names: tuple[str, ...]) -> None:
    """Raise ValueError unless w is (..., d)."""
    if w.shape[-1:] != (len(names),):
        raise ValueError(
            f"expected parameters (..., {len(names)}) for the coordinates {', '.join(names)}, got {tuple(w.shape)}"
        )


def check_images(x: Tensor) -> None:
    """Raise ValueError, saying what to do, unless x are images (B, C, H, W) of a floating type."""
    if x.dim() == 3:
        raise ValueError(f"expected images (B, C, H, W), got one of {tuple(x.shape)}: add a batch, x[None]")
    if x.dim() != 4:
        raise ValueError(f"expected images (B, C, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"expected images of a floating type, got {x.dtype}: convert them, x.float() / 255 for bytes")
