"""Colour changes through kornia: brightness, contrast, saturation and hue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowaug.spaces.base import Coordinates, check_images, check_parameters

COLORS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class ColorSpace(Coordinates):
    """Colour changes by w in [-1, 1]^d, one after another in the order of `dims`; w = 0 changes nothing.

    Brightness adds `strength` * w; contrast and saturation multiply by exp(`strength` * w), which treats more and less
    alike; hue rotates by pi * `hue_max` * w. The result is clamped to [0, 1], as kornia does.

    Args:
        dims: Different names of brightness, contrast, saturation and hue; the last two need RGB.
        strength: Of the first three at |w| = 1.
        hue_max: Rotation of the hue at |w| = 1 as a share of 180 degrees, in (0, 1]; at 1 it is periodic.
        mean: Per channel, where images are standardised: undone before and redone after.
        std: Per channel, likewise.

    Raises:
        ValueError: A name or range is wrong.
    """

    dims: tuple[str, ...] = COLORS
    strength: float = 0.5
    hue_max: float = 0.2
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self.check_dims(COLORS)
        if not 0 < self.strength < math.inf or not 0 < self.hue_max <= 1:
            raise ValueError(f"expected strength > 0 and hue_max in (0, 1], got {self.strength} and {self.hue_max}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Per coordinate: only a hue of up to 180 degrees either way is."""
        return tuple(name == "hue" and self.hue_max == 1 for name in self.dims)

    def warp(self, images: Tensor, w: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] (or standardised) under w (B, S, d), as (B, S, C, H, W).

        Raises:
            ValueError: Saturation or hue of images that are not RGB.
        """
        check_parameters(w, self.dims)
        check_images(images)
        if images.shape[1] != 3 and {"saturation", "hue"} & set(self.dims):
            raise ValueError(f"saturation and hue need RGB images (B, 3, H, W), got {tuple(images.shape)}")
        views = images[:, None].expand(-1, w.shape[1], -1, -1, -1).flatten(0, 1)
        views = self._unit(views, forward=True)
        for name, value in zip(self.dims, w.flatten(0, 1).unbind(-1), strict=True):
            views = self._change(name, views, value)
        return self._unit(views, forward=False).unflatten(0, w.shape[:2])

    def _change(self, name: str, views: Tensor, value: Tensor) -> Tensor:
        from kornia import enhance

        if name == "brightness":
            return enhance.adjust_brightness(views, self.strength * value)
        if name == "contrast":
            return enhance.adjust_contrast_with_mean_subtraction(views, torch.exp(self.strength * value))
        if name == "saturation":
            return enhance.adjust_saturation_with_gray_subtraction(views, torch.exp(self.strength * value))
        return enhance.adjust_hue(views, math.pi * self.hue_max * value)

    def _unit(self, views: Tensor, forward: bool) -> Tensor:
        if self.mean is None or self.std is None:
            return views
        mean, std = (views.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return views * std + mean if forward else (views - mean) / std
