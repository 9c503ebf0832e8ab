"""Augmentation of photos, drawn for each image of a batch at once; every amount is a share of the image's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from pseudolabel_da.reading.augmentation import Range, check_images, uniform

GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue in brightness


def photo_augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    area: Range = (0.3, 1.0),
    stretch: float = 4 / 3,
    flip: float = 0.5,
    colour: float = 0.4,
    operations: int = 2,
    magnitude: float = 0.5,
    value_range: Range = (-1.0, 1.0),
) -> Tensor:
    """A random part of each image at its full size, perhaps mirrored, in other colours, changed by random operations.

    The part is that of Szegedy et al. 2015 (area and side ratio drawn), the operations those of RandAugment (Cubuk et
    al. 2020) with amounts drawn up to `magnitude`: see `OPERATIONS`. Images of any size are changed alike.

    Args:
        images: (B, C, H, W) floating.
        generator: Of the device of the images, or of the CPU; None takes torch's own.
        area: Range of the share of the image that is kept.
        stretch: Largest ratio of the part's sides to those of the image, and its inverse the smallest.
        flip: Chance that an image is mirrored left to right.
        colour: Largest change of brightness, contrast and saturation, each by a factor of 1 - colour to 1 + colour.
        operations: How many operations each image undergoes, drawn anew for each.
        magnitude: Of the operations, in [0, 1].
        value_range: Smallest and largest value of the images; results are clamped to it.

    Returns:
        (B, C, H, W), new, of the type of the images.

    Raises:
        ValueError: The images have another shape or type, or the range is empty.
    """
    low, high = value_range
    check_images(images, low, high)
    draw = partial(uniform, images, generator)
    x = (cropped(images, draw, area, stretch, flip) - low) / (high - low)
    for change in (brightness, contrast, saturation):
        x = change(x, draw((len(x), 1, 1, 1), 1 - colour, 1 + colour))
    for _ in range(operations):
        x = _random_operation(x, draw, magnitude)
    return x * (high - low) + low


def cropped(images: Tensor, draw: Callable[..., Tensor], area: Range, stretch: float, flip: float) -> Tensor:
    """A random part of each image (B, C, H, W), brought to its size bilinearly and perhaps mirrored."""
    shape = (len(images),)
    share, ratio = draw(shape, *area), stretch ** draw(shape, -1.0, 1.0)
    height, width = ((share * r).sqrt().clamp_max(1) for r in (1 / ratio, ratio))
    mirrored = torch.where(draw(shape) < flip, -1.0, 1.0)
    centre_x, centre_y = ((1 - side) * draw(shape, -1.0, 1.0) for side in (width, height))
    return moved(
        images, (width * mirrored, torch.zeros_like(width)), (torch.zeros_like(width), height), centre_x, centre_y
    )


def moved(
    images: Tensor, row_x: tuple[Tensor, Tensor], row_y: tuple[Tensor, Tensor], shift_x: Tensor, shift_y: Tensor
) -> Tensor:
    """Images (B, C, H, W) read at an affine map of places in [-1, 1], the border reflected.

    Args:
        images: (B, C, H, W).
        row_x: Factors (B,) of x and y that give the place's x.
        row_y: The same for its y.
        shift_x: (B,) added to x.
        shift_y: (B,) added to y.
    """
    matrix = torch.stack([torch.stack([*row_x, shift_x], 1), torch.stack([*row_y, shift_y], 1)], 1)
    grid = F.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Values in [0, 1] times a factor (B, 1, 1, 1)."""
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """The distance of each value to the image's mean brightness, times a factor."""
    return _from(grey_of(x).mean((1, 2, 3), keepdim=True), x, factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """The distance of each pixel to its grey, times a factor; grey images stay as they are."""
    return _from(grey_of(x), x, factor)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """The distance of each pixel to the smoothed image, times a factor; the border stays as it is."""
    kernel = torch.ones(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(5.0)) / 13
    weight = kernel.to(x).expand(x.shape[1], 1, 3, 3)
    smooth = F.pad(F.conv2d(x, weight, groups=x.shape[1]), (1, 1, 1, 1)) if min(x.shape[2:]) > 2 else x
    inner = F.pad(torch.ones_like(x[:1, :1, 1:-1, 1:-1]), (1, 1, 1, 1)) if min(x.shape[2:]) > 2 else x[:1, :1] * 0
    return _from(torch.where(inner > 0, smooth, x), x, factor)


def posterise(x: Tensor, bits: Tensor) -> Tensor:
    """Values in [0, 1], as bytes, with all but the highest bits (B, 1, 1, 1) cut off."""
    step = 2.0 ** (8 - bits)
    return ((x * 255).round() / step).floor() * step / 255


def solarise(x: Tensor, threshold: Tensor) -> Tensor:
    """Values in [0, 1] from a threshold (B, 1, 1, 1) on inverted."""
    return torch.where(x >= threshold, 1 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]; one of a single value stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x)


def grey_of(x: Tensor) -> Tensor:
    """(B, 1, H, W) brightness of images of three channels, the mean of others."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(GREY).to(x)[:, None, None]).sum(1, keepdim=True)


def _from(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    return (base + (x - base) * factor).clamp(0, 1)


def _geometry(kind: str, x: Tensor, amount: Tensor) -> Tensor:
    """Turn, shear or shift by an amount (B,) in [-1, 1]: by at most 45 degrees, 0.5 or 0.4 of the image's side."""
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    if kind == "turn":
        ratio, angle = x.shape[2] / x.shape[3], amount * torch.pi / 4
        return moved(x, (angle.cos(), -angle.sin() * ratio), (angle.sin() / ratio, angle.cos()), zero, zero)
    rows = {
        "shear x": ((one, 0.5 * amount), (zero, one), zero, zero),
        "shear y": ((one, zero), (0.5 * amount, one), zero, zero),
        "shift x": ((one, zero), (zero, one), 0.8 * amount, zero),
        "shift y": ((one, zero), (zero, one), zero, 0.8 * amount),
    }
    return moved(x, *rows[kind])


def _factor(amount: Tensor) -> Tensor:
    return (1 + 0.9 * amount)[:, None, None, None]


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda x, amount: x,
    "autocontrast": lambda x, amount: autocontrast(x),
    "brightness": lambda x, amount: brightness(x, _factor(amount)),
    "contrast": lambda x, amount: contrast(x, _factor(amount)),
    "saturation": lambda x, amount: saturation(x, _factor(amount)),
    "sharpness": lambda x, amount: sharpness(x, _factor(amount)),
    "posterise": lambda x, amount: posterise(x, (8 - 4 * amount.abs()).round()[:, None, None, None]),
    "solarise": lambda x, amount: solarise(x, (1 - amount.abs())[:, None, None, None]),
    **{kind: partial(_geometry, kind) for kind in ("turn", "shear x", "shear y", "shift x", "shift y")},
}
"""What may happen to images (B, C, H, W) in [0, 1], by name, by an amount (B,) in [-1, 1]."""


def _random_operation(x: Tensor, draw: Callable[..., Tensor], magnitude: float) -> Tensor:
    """Each image through one operation of its own."""
    names: Sequence[str] = tuple(OPERATIONS)
    chosen = (draw((len(x),)) * len(names)).long().clamp_max(len(names) - 1)
    amount, changed = magnitude * draw((len(x),), -1.0, 1.0), x.clone()
    for number, name in enumerate(names):
        rows = (chosen == number).nonzero()[:, 0]
        if len(rows):
            changed[rows] = OPERATIONS[name](x[rows], amount[rows]).clamp(0, 1)
    return changed
