"""Image sets of another size, colour or pose."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.data.storage import empty_like_rows
from robustvision_core.data.transforms.augment import rotate
from robustvision_core.errors import DataError

CHUNK = 1024  # images held as floating point at once


def resize(data: ImageSet, size: int) -> ImageSet:
    """Every image brought to `size` pixels a side, bilinearly with antialiasing; proportions are not kept.

    Raises:
        DataError: `size` is not positive.
    """
    if size < 1:
        raise DataError(f"{data.name}: size is {size}, expected 1 or more pixels")
    if data.shape[1:] == (size, size):
        return data
    images = empty_like_rows(data.images, (len(data), data.shape[0], size, size))
    for rows in torch.arange(len(data), device=data.device).split(CHUNK):
        part = data.images.index_select(0, rows).float()
        small = functional.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)
        images[rows] = small.round_().clamp_(0, 255).to(torch.uint8)
    return replace(data, images=images)


def pad_to(data: ImageSet, size: int) -> ImageSet:
    """Every image amid a black border, `size` pixels a side.

    Raises:
        DataError: `size` is smaller than the image, or the border cannot be the same on both sides.
    """
    borders = [size - side for side in data.shape[1:]]
    if any(border < 0 or border % 2 for border in borders):
        raise DataError(f"{data.name}: cannot pad {data.shape[1]}x{data.shape[2]} pixels to {size} evenly")
    down, across = (border // 2 for border in borders)
    return replace(data, images=functional.pad(data.images, [across, across, down, down]))


def to_rgb(data: ImageSet) -> ImageSet:
    """Three equal channels where there is one.

    Raises:
        DataError: There are neither 1 nor 3 channels.
    """
    if data.shape[0] not in (1, 3):
        raise DataError(f"{data.name} has {data.shape[0]} channels, expected 1 or 3")
    return data if data.shape[0] == 3 else replace(data, images=data.images.repeat(1, 3, 1, 1))


def rotate_each(data: ImageSet, degrees: float, seed: int) -> ImageSet:
    """Every image turned about its centre by an angle of its own, uniform in [-degrees, degrees].

    The angle depends on (seed, id) alone, so that it stays with the sample whatever subset is rotated.

    Args:
        data: The set to rotate; 180 degrees gives every direction.
        degrees: Largest angle.
        seed: Of the angles.

    Returns:
        The set, with `extras["angle"]` (N,) float32 radians, the turn of each as of
        `robustvision_core.data.rotate`, added to the angle that was there.

    Raises:
        DataError: `degrees` is outside [0, 180].
    """
    if not 0 <= degrees <= 180:
        raise DataError(f"{data.name}: degrees is {degrees}, expected 0 to 180")
    unit = uniform(seed, (data.ids.cpu(),), 1)[:, 0].to(data.device)
    angles = (2 * unit - 1) * (torch.pi * degrees / 180)
    before = data.extras.get("angle", torch.zeros_like(angles))
    return replace(data, images=turned(data.images, angles), extras={**data.extras, "angle": before + angles})


def turned(images: Tensor, angles: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8, each rotated by its angle (N,) radians, as (N, C, H, W) uint8; see `rotate`."""
    result = torch.empty_like(images)
    for rows in torch.arange(len(images), device=images.device).split(CHUNK):
        result[rows] = rotate(images.index_select(0, rows).float(), angles[rows]).round_().to(torch.uint8)
    return result
