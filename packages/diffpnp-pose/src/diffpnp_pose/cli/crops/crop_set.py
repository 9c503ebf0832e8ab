"""Crops as a pose set, which remembers the camera of the photos they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from robustvision_core.data import PoseSet
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class CropSet(PoseSet):
    """A pose set of crops, one image an item.

    Images have three channels, or four: colours times coverage, and coverage (0 where there is nothing yet, and a
    background may show).

    Attributes:
        source_K: (N, 3, 3) intrinsics of the whole photos, in whose pixels errors are counted; default `K`.
    """

    source_K: Tensor = None  # type: ignore[assignment]  # filled in __post_init__

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source_K is None:
            object.__setattr__(self, "source_K", self.K)
        self._check("source_K", torch.float32, 3, 3)

    def take(self, indices: Tensor | Sequence[int]) -> Self:
        """As of `PoseSet`."""
        chosen = torch.as_tensor(indices, device=self.device)
        # an item's ids say which it is, so the base class picks all but what it does not know
        plain = PoseSet(**{name: getattr(self, name) for name in PoseSet.__dataclass_fields__}).take(indices)
        fields = {name: getattr(plain, name) for name in PoseSet.__dataclass_fields__}
        return replace(self, **fields, source_K=self.source_K[chosen])


def cut(poses: PoseSet, size: tuple[int, int], margin: float, boxes: Tensor | None = None) -> CropSet:
    """The surroundings of every item's box, resized to `size`; the camera matrix follows.

    Args:
        poses: N items of images with three channels.
        size: Width and height of the crops.
        margin: How much larger than the box a crop is, in the direction where the box fills more of it.
        boxes: (N, 4) pixels (left, top, right, bottom); default those of the set.

    Returns:
        The crops, with coverage as fourth channel: 0 beyond the photo's edge.
    """
    boxes = poses.boxes if boxes is None else boxes
    windows = around(boxes, size, margin)
    shown = poses.image_index.tolist()
    images = torch.stack([window(poses.images[k], w, size) for k, w in zip(shown, windows.tolist(), strict=True)])
    scale, corner = scales(windows, size), windows[:, :2].to(poses.K)
    return CropSet(
        images,
        poses.R,
        poses.t,
        moved(poses.K, scale, corner),
        poses.objects,
        poses.object_id,
        keypoints_2d=(poses.keypoints_2d - corner[:, None]) * scale[:, None],
        boxes=(poses.boxes - corner.repeat(1, 2)) * scale.repeat(1, 2),
        ids=poses.ids,
        name=poses.name,
        source_K=poses.K,
    )


def around(boxes: Tensor, size: tuple[int, int], margin: float) -> Tensor:
    """(N, 4) int64 windows (left, top, right, bottom) of the aspect of `size`, up to a pixel, about boxes (N, 4)."""
    aspect = boxes.new_tensor(size)
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp_min(1)
    half = margin / 2 * (extent / aspect).amax(1, keepdim=True) * aspect
    return torch.cat([(centre - half).floor(), (centre + half).ceil()], 1).long()


def scales(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 2): crop pixels a photo pixel, in x and y."""
    return windows.new_tensor(size).float() / (windows[:, 2:] - windows[:, :2])


def moved(K: Tensor, scale: Tensor, corner: Tensor) -> Tensor:
    """Camera matrices (N, 3, 3) of crops whose upper left corner (N, 2) was cut and that were scaled by (N, 2)."""
    shifted = K.clone()
    shifted[:, :2, 2] -= corner
    shifted[:, :2] *= scale[:, :, None]
    return shifted


def window(image: Tensor, place: list[int], size: tuple[int, int]) -> Tensor:
    """(4, H, W) uint8: what of an image (3, h, w) is in a window that may reach beyond it, and coverage."""
    left, top, right, bottom = place
    height, width = image.shape[1:]
    inside = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].float()
    covered = torch.cat([inside, torch.full_like(inside[:1], 255)])
    sides = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
    if not covered.numel():
        return torch.zeros(4, size[1], size[0], dtype=torch.uint8)
    padded = functional.pad(covered, sides)
    shape = (size[1], size[0])
    smooth = functional.interpolate(padded[None], shape, mode="bilinear", antialias=True, align_corners=False)
    return smooth[0].round_().clamp_(0, 255).to(torch.uint8)


def opaque(crops: CropSet) -> CropSet:
    """The crops with three channels, black where nothing is."""
    return replace(crops, images=crops.images[:, :3]) if crops.images.shape[1] == 4 else crops
