"""Warps of images by sampling matrices, S per image, and the same matrices for points.

A sampling matrix M (2, 3) says where each output pixel is read: `output(p) = input(M [p; 1])` with p = (x, y) in
normalised coordinates, (-1, -1) the upper left corner and (1, 1) the lower right one. Content therefore moves by the
**inverse** of M. Two warps in a row, first M1 then M2, are one warp by `compose(M1, M2)`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["zeros", "border", "reflection"]
Mode = Literal["bilinear", "nearest", "bicubic"]


def warp(
    images: Tensor,
    matrices: Tensor,
    mode: Mode = "bilinear",
    padding: Padding = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """Every image under S sampling matrices of its own.

    The S grids of an image stand below one another and are read with one `grid_sample` per image: bit-identical to S
    calls, without S copies of the image.

    Args:
        images: (B, C, H, W), any floating type; half precision is read in float32, as grids need the digits.
        matrices: (B, S, 2, 3) sampling matrices, from output to input.
        mode: As in `torch.nn.functional.grid_sample`.
        padding: What stands outside the image. Black corners (`zeros`) tell a classifier the angle.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels (True) or their outer edges.

    Returns:
        (B, S, C, H, W), of the type of `images`.

    Raises:
        ValueError: Shapes do not fit.
    """
    if images.dim() != 4 or matrices.dim() != 4 or matrices.shape[2:] != (2, 3) or len(matrices) != len(images):
        raise ValueError(
            "expected images (B, C, H, W) and sampling matrices (B, S, 2, 3), "
            f"got {tuple(images.shape)} and {tuple(matrices.shape)}"
        )
    B, C, H, W = images.shape
    S = matrices.shape[1]
    if B * S == 0:
        return images.new_zeros(B, S, C, H, W)  # affine_grid refuses these
    kind = torch.promote_types(images.dtype, torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(matrices.flatten(0, 1).to(kind), [B * S, C, H, W], align_corners=align_corners)
        stacked = grid.view(B, S * H, W, 2)
        read = F.grid_sample(images.to(kind), stacked, mode, padding, align_corners=align_corners)
    return read.view(B, C, S, H, W).transpose(1, 2).to(images.dtype)


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
    if align_corners:
        return 2 * points / (extent - 1) - 1
    return (2 * points + 1) / extent - 1


def pixels(points: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Inverse of `normalised`: (..., 2) in [-1, 1] to pixels (x, y)."""
    extent = points.new_tensor([size[1], size[0]])
    if align_corners:
        return (points + 1) * (extent - 1) / 2
    return ((points + 1) * extent - 1) / 2
