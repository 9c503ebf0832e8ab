"""Turned, scaled and shifted crops: what the camera and the pose become."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Camera(NamedTuple):
    """Intrinsics (B, 3, 3) and the pose (B, 3, 3), (B, 3) under them."""

    K: Tensor
    R: Tensor
    t: Tensor


def similarities(
    count: int, size: tuple[int, int], turn: float, zoom: float, shift: float, generator: torch.Generator
) -> Tensor:
    """Random maps (B, 2, 3) of pixels about the middle of an image.

    Args:
        count: B.
        size: Width and height.
        turn: Largest turn, degrees.
        zoom: Largest scale; the smallest is one over it.
        shift: Largest shift, as a share of the size.
        generator: Of the choice.
    """
    drawn = 2 * torch.rand(count, 4, generator=generator) - 1
    angle, scale = torch.deg2rad(drawn[:, 0] * turn), torch.tensor(zoom).pow(drawn[:, 1])
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    middle = torch.tensor(size) / 2
    offset = middle - linear @ middle + shift * drawn[:, 2:] * torch.tensor(size)
    return torch.cat([linear, offset[..., None]], -1)


def staying(maps: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """The maps (B, 2, 3), with the identity for those that take one of the points (B, P, 2) out of the image."""
    seen = mapped(points, maps)
    out = ((seen < 0) | (seen > torch.tensor(size))).flatten(1).any(1)
    return torch.where(out[:, None, None], torch.eye(2, 3), maps)


def mapped(points: Tensor, maps: Tensor) -> Tensor:
    """Pixels (B, P, 2) under maps (B, 2, 3)."""
    return points @ maps[:, :, :2].mT + maps[:, None, :, 2]


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Images (B, C, H, W) under maps (B, 2, 3) of their pixels, bilinearly, zero where nothing comes in."""
    height, width = images.shape[-2:]
    half = maps.new_tensor([width, height]) / 2
    linear = torch.linalg.inv(maps[:, :, :2])
    offset = -(linear @ maps[:, :, 2:])[..., 0]
    # pixels p of the source in units of half its size from the middle: p = half (u + 1)
    unit = linear * (half / half[:, None])
    shift = ((linear @ half + offset) / half - 1)[..., None]
    grid = functional.affine_grid(torch.cat([unit, shift], -1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def follow(camera: Camera, maps: Tensor) -> Camera:
    """The camera whose image is the mapped one.

    A turn of the image is a turn of the camera about its axis: the map times K is split into an upper triangle, the new
    intrinsics, and a rotation, which goes to the pose (an RQ decomposition of the upper left 2x2 part).
    """
    linear = maps[:, :, :2] @ camera.K[:, :2, :2]
    angle = torch.atan2(linear[:, 1, 0], linear[:, 1, 1])
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], -1).view(-1, 3, 3)
    K = camera.K.clone()
    K[:, :2, :2] = (linear @ turn[:, :2, :2].mT).triu()
    K[:, :2, 2] = mapped(camera.K[:, None, :2, 2], maps)[:, 0]
    return Camera(K, turn @ camera.R, (turn @ camera.t[..., None])[..., 0])
