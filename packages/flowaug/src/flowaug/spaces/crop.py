"""Crops that stay inside the image, with centre and size of their own per axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowaug.spaces.base import check_parameters
from flowaug.warp import Mode, Padding, check_reading, warp


@dataclass(frozen=True)
class CropSpace:
    r"""Crops of four parameters w = (x, y, width, height) in $[-1, 1]^4$ (paper, TinyImageNet).

    The size is $s_i = s_{min} + (1 - s_{min})(w_{s,i} + 1)/2$ of the image and the centre $c_i = w_{c,i} (1 - s_i)$ in
    normalised coordinates, so that no crop leaves the image. The output has the input's size; w_s = 1 changes nothing.
    Densities are those of w, not of (c, s): the entropy of a flow is in nats per unit of the box.

    Args:
        smallest: s_min, the smallest side of a crop as a share of the image's, in (0, 1).
        padding: As in `grid_sample`; matters at rounding only.
        mode: bilinear, nearest or bicubic.
        align_corners: As in `grid_sample`.

    Raises:
        ValueError: `smallest` is not in (0, 1), mode or padding unknown.
    """

    smallest: float = 0.25
    padding: Padding = "border"
    mode: Mode = "bilinear"
    align_corners: bool = True

    names = ("x", "y", "width", "height")
    dim = 4
    periodic = (False, False, False, False)

    fill = 0.0

    def __post_init__(self) -> None:
        check_reading(self.mode, self.padding)
        if not 0 < self.smallest < 1:
            raise ValueError(f"smallest must be in (0, 1), got {self.smallest}")

    def matrix(self, w: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Sampling matrices (..., 2, 3) of w (..., 4): diag(s) beside c. The image's size does not matter.

        Raises:
            ValueError: w does not have 4 coordinates.
        """
        check_parameters(w, self.names)
        w = w.to(torch.promote_types(w.dtype, torch.float32))
        sides = self.smallest + (1 - self.smallest) * (w[..., 2:] + 1) / 2
        centres = w[..., :2] * (1 - sides)
        return torch.cat([torch.diag_embed(sides), centres[..., None]], -1)

    def parameters(self, centres: Tensor, sides: Tensor) -> Tensor:
        """w (..., 4) of crops with centres (..., 2) in normalised coordinates and sides (..., 2) as shares."""
        room = (1 - sides).clamp_min(torch.finfo(sides.dtype).tiny)
        return torch.cat([centres / room, 2 * (sides - self.smallest) / (1 - self.smallest) - 1], -1)

    def warp(self, images: Tensor, w: Tensor) -> Tensor:
        """Images (B, C, H, W) under w (B, S, 4), as (B, S, C, H, W)."""
        return warp(images, self.matrix(w), self.mode, self.padding, self.align_corners)
