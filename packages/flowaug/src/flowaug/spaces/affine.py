"""Affine transforms in Lie coordinates, whole or in part, and the free entries of rotation discovery."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowaug.spaces.base import Coordinates, check_parameters
from flowaug.spaces.exponential import affine_exponential, affine_logarithm
from flowaug.warp import Fill, Mode, Padding, check_reading, checked_fill, warp

GENERATORS: dict[str, tuple[float, ...]] = {
    "tx": (0, 0, 1, 0, 0, 0),
    "ty": (0, 0, 0, 0, 0, 1),
    "rot": (0, -1, 0, 1, 0, 0),
    "scale": (1, 0, 0, 0, 1, 0),
    "stretch": (1, 0, 0, 0, -1, 0),
    "shear": (0, 1, 0, 1, 0, 0),
    "a11": (1, 0, 0, 0, 0, 0),
    "a12": (0, 1, 0, 0, 0, 0),
    "a21": (0, 0, 0, 1, 0, 0),
    "a22": (0, 0, 0, 0, 1, 0),
}
"""Rows of the 2x3 generators G_k by coordinate: six Lie coordinates, then the free entries of the linear part."""

ROTATION_DISCOVERY = ("a12", "a21")
"""The two free entries of equation 20 of which a rotation needs a12 = -a21."""

FREE_ENTRIES = ("a11", "a12", "tx", "a21", "a22", "ty")
"""All six entries of equation 20."""


@dataclass(frozen=True)
class AffineSpace(Coordinates):
    r"""Affine warps $M(w) = \exp(\sum_k s_k w_k G_k)$, w in $[-1, 1]^d$ (paper, equations 19 and 20).

    M is a sampling matrix: content moves by its inverse. A positive `rot` rotates content counter-clockwise, as
    `torch.rot90(k=1)` does; a positive `scale` shows more of the image, so content shrinks. w = 0 changes nothing.

    `rot` up to ±180 degrees is periodic, and means of it are circular. Where other coordinates than `scale` stand
    beside it, -1 and 1 are the same rotation and differ a little in how they combine with those.

    Args:
        dims: Coordinates in the order of w: any of tx, ty, rot, scale, stretch, shear (the paper's six, in this
            order), or the free entries a11, a12, a21, a22 of the generator (`ROTATION_DISCOVERY`, `FREE_ENTRIES`).
        trans_scale: Translation at |w| = 1, in half sizes of the image.
        rot_max: Angle at |w| = 1 in radians, at most pi.
        linear_scale: Size of the other generators at |w| = 1 (1: content grows up to e times).
        padding: Outside the image: zeros, border or reflection.
        mode: bilinear, nearest or bicubic.
        align_corners: As in `grid_sample`.
        fill: What stands outside the image with padding zeros: one number, or one per channel.

    Raises:
        ValueError: Mode, padding or fill is wrong, a coordinate is unknown or named twice, or a range is wrong.
    """

    dims: tuple[str, ...] = ("tx", "ty", "rot", "scale", "stretch", "shear")
    trans_scale: float = 0.1
    rot_max: float = math.pi
    linear_scale: float = 1.0
    padding: Padding = "zeros"
    mode: Mode = "bilinear"
    align_corners: bool = True
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        self.check_dims(GENERATORS)
        check_reading(self.mode, self.padding)
        object.__setattr__(self, "fill", checked_fill(self.fill, self.padding))
        if not 0 < self.rot_max <= math.pi:
            raise ValueError(f"rot_max must be in (0, pi], got {self.rot_max}")
        if not (0 < self.trans_scale < math.inf and 0 < self.linear_scale < math.inf):
            raise ValueError(f"scales must be positive, got {self.trans_scale} and {self.linear_scale}")

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Per coordinate: only a rotation by up to 180 degrees either way is."""
        return tuple(name == "rot" and self.rot_max == math.pi for name in self.dims)

    @property
    def scales(self) -> tuple[float, ...]:
        """s_k: the size of each coordinate's generator at w_k = 1."""
        special = {"tx": self.trans_scale, "ty": self.trans_scale, "rot": self.rot_max}
        return tuple(special.get(name, self.linear_scale) for name in self.dims)

    def generator(self, w: Tensor, size: tuple[int, int]) -> Tensor:
        """The generators (..., 2, 3) of w (..., d), in the normalised coordinates of images (H, W).

        The linear part is conjugated by the half sizes of the image, so that a rotation stays one where H != W.
        """
        check_parameters(w, self.dims)
        kind = torch.promote_types(w.dtype, torch.float32)
        with torch.autocast(w.device.type, enabled=False):
            make = _make_basis if torch.compiler.is_compiling() else _basis  # no traced tensor may be kept
            return (w.to(kind) @ make(self, size, kind, w.device)).unflatten(-1, (2, 3))

    def matrix(self, w: Tensor, size: tuple[int, int]) -> Tensor:
        """Sampling matrices (..., 2, 3) of w (..., d) for images (H, W).

        Raises:
            ValueError: w does not have d coordinates.
        """
        return affine_exponential(self.generator(w, size))

    def parameters(self, matrices: Tensor, size: tuple[int, int]) -> Tensor:
        """w (..., d) whose transforms are sampling matrices (..., 2, 3): the inverse of `matrix`, in float64.

        Where no w gives a matrix, as for a sum of steps that leaves what the coordinates span, its generator is the
        nearest to the matrix's logarithm. Rotations come out within ±180 degrees; w may leave the box.

        Raises:
            ValueError: A matrix mirrors or is singular.
        """
        basis = _make_basis(self, size, torch.float64, matrices.device)
        return affine_logarithm(matrices).flatten(-2) @ torch.linalg.pinv(basis)

    def warp(self, images: Tensor, w: Tensor) -> Tensor:
        """Images (B, C, H, W) under w (B, S, d), as (B, S, C, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        return warp(images, self.matrix(w, size), self.mode, self.padding, self.align_corners, self.fill)


def _make_basis(space: AffineSpace, size: tuple[int, int], kind: torch.dtype, device: torch.device) -> Tensor:
    """Scaled generators, one row each (d, 6)."""
    halves = [max(extent - 1, 1) if space.align_corners else extent for extent in size]
    aspect = halves[0] / halves[1]
    correction = (1.0, aspect, 1.0, 1 / aspect, 1.0, 1.0)
    rows = [
        [scale * entry * fix for entry, fix in zip(GENERATORS[name], correction, strict=True)]
        for name, scale in zip(space.dims, space.scales, strict=True)
    ]
    with torch.inference_mode(False):  # what an inference call leaves here must serve training too
        return torch.tensor(rows, dtype=kind, device=device)


_basis = functools.lru_cache(maxsize=64)(_make_basis)  # a step then copies nothing to the device
