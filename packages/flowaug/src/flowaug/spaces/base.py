"""What a space of transforms gives: its dimension, its periodic coordinates and the transform itself."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from flowaug.warp import Mode, Padding


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
