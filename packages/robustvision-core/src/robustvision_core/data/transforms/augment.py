"""Random shifts, mirrorings and rotations, drawn for each sample, computed for the batch at once.

Every function takes and gives (B, C, H, W) float images and draws from the generator it is given, which must be on
the images' device. What comes in from outside the image is zero: black, where images are not yet normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional


def random_shift(images: Tensor, pixels: int, generator: torch.Generator | None = None) -> Tensor:
    """Each image shifted by whole pixels, both ways uniform in [-pixels, pixels]; exactly zero padding and a crop."""
    return _cut(images, pixels, _draw_corners(images, pixels, generator), None)


def random_flip(images: Tensor, generator: torch.Generator | None = None, p: float = 0.5) -> Tensor:
    """Each image mirrored left to right with probability `p`."""
    mirrored = _draw_flips(images, p, generator)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def random_rotation(images: Tensor, degrees: float, generator: torch.Generator | None = None) -> Tensor:
    """Each image rotated about its centre by an angle uniform in [-degrees, degrees], bilinearly."""
    return _affine(images, generator, shift=0, flip=False, degrees=degrees)


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Each image rotated about its centre by its own angle, bilinearly.

    Args:
        images: (B, C, H, W) float.
        angles: (B,) radians, positive from right to down: clockwise as seen, where y points down.

    Returns:
        (B, C, H, W) of the type of `images`.
    """
    return _resample(images, images.new_zeros(len(images), 2), None, -angles.to(images.dtype))


def affine_augment(
    shift: int = 4, flip: bool = True, degrees: float = 15
) -> Callable[[Tensor, torch.Generator | None], Tensor]:
    """One function that rotates, then mirrors, then shifts each image, resampling it once.

    With `degrees=0` nothing is interpolated: the result is bit-equal to padding, cropping and mirroring.

    Args:
        shift: Largest shift each way, in whole pixels.
        flip: Whether to mirror half of the images left to right.
        degrees: Largest rotation, uniform in [-degrees, degrees].

    Returns:
        `augment(images, generator)` for `robustvision_core.data.DeviceBatches`.

    Raises:
        ValueError: `shift` or `degrees` is negative.
    """
    if shift < 0 or int(shift) != shift:
        raise ValueError(f"shift is {shift}: expected a whole number of pixels, 0 or more")
    if degrees < 0:
        raise ValueError(f"degrees is {degrees}: expected 0 or more")
    return partial(_affine, shift=int(shift), flip=flip, degrees=degrees)


def _affine(images: Tensor, generator: torch.Generator | None, shift: int, flip: bool, degrees: float) -> Tensor:
    corners = _draw_corners(images, shift, generator)
    mirrored = _draw_flips(images, 0.5, generator) if flip else None
    if degrees == 0:
        return _cut(images, shift, corners, mirrored)
    unit = torch.rand(len(images), generator=generator, device=images.device, dtype=images.dtype)
    return _resample(images, corners - shift, mirrored, (2 * unit - 1) * torch.pi * degrees / 180)


def _cut(images: Tensor, pad: int, corners: Tensor, mirrored: Tensor | None) -> Tensor:
    """Windows of the zero-padded images with their upper left corners at `corners` (B, 2), some mirrored."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (pad, pad, pad, pad))
    rows, columns = (torch.arange(size, device=images.device).expand(batch, size) for size in (height, width))
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    rows, columns = rows + corners[:, :1], columns + corners[:, 1:]
    place = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]
    # one flat gather: measured several times faster than indexing by four tensors
    flat = place.reshape(batch, 1, -1).expand(batch, channels, height * width)
    return padded.flatten(2).gather(2, flat).reshape(images.shape)


def _resample(images: Tensor, offsets: Tensor, mirrored: Tensor | None, angles: Tensor) -> Tensor:
    """Read each image at rotated, mirrored and shifted places: offsets (B, 2) pixels (y, x), angles (B,) radians."""
    height, width = images.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    down, right = offsets.to(images.dtype).unbind(1)
    sign = torch.ones_like(cos) if mirrored is None else 1 - 2 * mirrored.to(images.dtype)
    # grid coordinates run over [-1, 1] along either side, so that off a square a rotation needs the ratio
    x_row = torch.stack([cos * sign, -sin * height / width, (cos * right - sin * down) * 2 / width], 1)
    y_row = torch.stack([sin * sign * width / height, cos, (sin * right + cos * down) * 2 / height], 1)
    grid = functional.affine_grid(torch.stack([x_row, y_row], 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _draw_corners(images: Tensor, pixels: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(2 * pixels + 1, (len(images), 2), generator=generator, device=images.device)


def _draw_flips(images: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    return torch.rand(len(images), generator=generator, device=images.device) < p
