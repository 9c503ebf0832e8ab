"""Warps of images by sampling matrices, S per image, and the same matrices for points.

A sampling matrix M (2, 3) says where each output pixel is read: `output(p) = input(M [p; 1])` with p = (x, y) in
normalised coordinates, (-1, -1) the upper left corner and (1, 1) the lower right one. Content therefore moves by the
**inverse** of M. Two warps in a row, first M1 then M2, are one warp by `compose(M1, M2)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["zeros", "border", "reflection"]
Mode = Literal["bilinear", "nearest", "bicubic"]
Fill = float | tuple[float, ...]


def check_reading(mode: str, padding: str) -> None:
    """Raise ValueError unless images can be read in this mode with this padding."""
    for name, value, known in (("mode", mode, get_args(Mode)), ("padding", padding, get_args(Padding))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def checked_fill(fill: Fill, padding: str) -> Fill:
    """A fill as a number or a tuple of numbers; ValueError unless finite, and alone where another padding stands."""
    colour = tuple(map(float, fill)) if isinstance(fill, Sequence) else float(fill)
    values = colour if isinstance(colour, tuple) else (colour,)
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"fill must be one finite number, or one per channel, got {fill}")
    if any(values) and padding != "zeros":
        raise ValueError(f"fill stands outside the image with padding zeros alone: {padding} needs none, got {fill}")
    return colour if any(values) else 0.0


def warp(
    images: Tensor,
    matrices: Tensor,
    mode: Mode = "bilinear",
    padding: Padding = "zeros",
    align_corners: bool = True,
    fill: Fill = 0.0,
) -> Tensor:
    """Every image under S sampling matrices of its own.

    The S grids of an image stand below one another and are read with one `grid_sample` per image: bit-identical to S
    calls, without S copies of the image.

    Args:
        images: (B, C, H, W). Half precision is read in float32, as grids need the digits; integers are read in
            floating point and rounded.
        matrices: (B, S, 2, 3) sampling matrices, from output to input.
        mode: As in `torch.nn.functional.grid_sample`.
        padding: What stands outside the image. Black corners (`zeros`) tell a classifier the angle.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels (True) or their outer edges.
        fill: Value of what stands outside the image, for all channels or for each, with padding zeros.

    Returns:
        (B, S, C, H, W), of the type of `images`.

    Raises:
        ValueError: Shapes, mode, padding or fill do not fit.
    """
    check_reading(mode, padding)
    if images.dim() != 4 or matrices.dim() != 4 or matrices.shape[2:] != (2, 3) or matrices.shape[0] != images.shape[0]:
        raise ValueError(
            "expected images (B, C, H, W) and sampling matrices (B, S, 2, 3), "
            f"got {tuple(images.shape)} and {tuple(matrices.shape)}"
        )
    B, C, H, W = images.shape
    S = matrices.shape[1]
    if not torch.compiler.is_compiling() and B * S == 0:
        return images.new_zeros(B, S, C, H, W)  # grid_sample refuses these
    source = images.to(_reading_type(images.dtype))
    filled = padding == "zeros" and fill != 0.0
    if filled:  # a channel of ones tells how much of a pixel is of the image
        source = torch.cat([source, source.new_ones(B, 1, H, W)], 1)
    with torch.autocast(images.device.type, enabled=False):
        grid = _grid(matrices.to(source.dtype), H, W, align_corners)
        read = F.grid_sample(source, grid, mode, padding, align_corners=align_corners)
    views = read.unflatten(2, (S, H)).transpose(1, 2)
    if filled:
        views, seen = views[:, :, :-1], views[:, :, -1:]
        views = views + (1 - seen) * _fill_colour(fill, C, source)
    return _as_type(views, images.dtype)


def _grid(matrices: Tensor, H: int, W: int, align_corners: bool) -> Tensor:
    """Where the pixels of S views of each image are read, (B, S H, W, 2): the grids of `affine_grid`, stacked.

    Written out, for `affine_grid` takes no size that an exported program leaves open.
    """
    rows, columns = (_centres(extent, align_corners, matrices) for extent in (H, W))
    x, y = columns.expand(H, W), rows[:, None].expand(H, W)
    base = torch.stack([x, y, torch.ones_like(x)], -1).view(1, H * W, 3)
    flat = matrices.flatten(0, 1)
    return base.expand(flat.shape[0], -1, -1).bmm(flat.mT).view(matrices.shape[0], -1, W, 2)


def _centres(extent: int, align_corners: bool, like: Tensor) -> Tensor:
    """Normalised coordinates of the pixel centres along an axis."""
    if extent <= 1:
        return torch.zeros(extent, dtype=like.dtype, device=like.device)
    line = torch.linspace(-1, 1, extent, dtype=like.dtype, device=like.device)
    return line if align_corners else line * (extent - 1) / extent


def _reading_type(kind: torch.dtype) -> torch.dtype:
    """The floating type in which images of a type are read without loss."""
    if kind in (torch.int32, torch.int64):
        return torch.float64
    return torch.promote_types(kind, torch.float32)


def _as_type(values: Tensor, kind: torch.dtype) -> Tensor:
    """Values in a type of images: rounded and kept in range where it has whole numbers."""
    if kind.is_floating_point:
        return values.to(kind)
    if kind == torch.bool:
        return values >= 0.5
    limits = torch.iinfo(kind)
    return values.round().clamp(limits.min, limits.max).to(kind)


def _fill_colour(fill: Fill, channels: int, like: Tensor) -> Tensor:
    """The fill as (C, 1, 1)."""
    colour = torch.tensor(fill, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
    if len(colour) not in (1, channels):
        raise ValueError(f"fill must be one number or one for each of {channels} channels, got {fill}")
    return colour


def homogeneous(matrices: Tensor) -> Tensor:
    """(..., 2, 3) affine matrices with the row (0, 0, 1) below, (..., 3, 3)."""
    row = matrices.new_tensor([0.0, 0.0, 1.0]).expand(*matrices.shape[:-2], 1, 3)
    return torch.cat([matrices, row], -2)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The sampling matrix (..., 2, 3) of warping by `first`, then the result by `second`: the product first·second.

    One warp by it reads the image once: no blur builds up.
    """
    linear = first[..., :2] @ second[..., :2]
    shift = (first[..., :2] @ second[..., 2:])[..., 0] + first[..., 2]
    return torch.cat([linear, shift[..., None]], -1)


def invert(matrices: Tensor) -> Tensor:
    """The inverse of affine matrices (..., 2, 3); infinite where singular."""
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in matrices.unbind(-2))
    linear = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / (a * d - b * c)[..., None, None]
    shift = -(linear @ torch.stack([tx, ty], -1)[..., None])
    return torch.cat([linear, shift], -1)


def identity_matrices(like: Tensor, *shape: int) -> Tensor:
    """Identity sampling matrices (*shape, 2, 3) of the type and device of `like`."""
    return torch.eye(2, 3, dtype=like.dtype, device=like.device).expand(*shape, 2, 3)


def rotation_angle(matrices: Tensor) -> Tensor:
    """By what angle warps with sampling matrices (..., 2, 3) rotate content counter-clockwise, in radians (...).

    That of the rotation nearest to the linear part, for square images; a linear part (..., 2, 2) alone will do.
    """
    return torch.atan2(matrices[..., 1, 0] - matrices[..., 0, 1], matrices[..., 0, 0] + matrices[..., 1, 1])


def normalised(points: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Pixel coordinates (..., 2) as (x, y), pixel centres whole numbers, in an image (H, W), to [-1, 1]."""
    extent = points.new_tensor([size[1], size[0]])
    between = (extent - 1).clamp_min(1)
    if align_corners:
        return 2 * points / between - 1
    return (2 * points + 1) / extent - 1


def pixels(points: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Inverse of `normalised`: (..., 2) in [-1, 1] to pixels (x, y)."""
    extent = points.new_tensor([size[1], size[0]])
    between = (extent - 1).clamp_min(1)
    if align_corners:
        return (points + 1) * between / 2
    return ((points + 1) * extent - 1) / 2
