"""Whole images at another size."""

from __future__ import annotations

from dataclasses import replace

import torch
from robustvision_core.data import PoseSet
from torch import Tensor


def resize(poses: PoseSet, size: tuple[int, int]) -> PoseSet:
    """A pose set with images of another width and height; intrinsics and pixels follow.

    Sizes of another aspect stretch the image, which a camera matrix can say.
    """
    height, width = poses.images.shape[2:]
    if (width, height) == size:
        return poses
    parts = [_resized(part, size) for part in poses.images.split(64)]
    scale = torch.tensor([size[0] / width, size[1] / height], device=poses.device)
    return replace(
        poses,
        images=torch.cat(parts),
        K=poses.K * torch.cat([scale, scale.new_ones(1)])[:, None],
        keypoints_2d=poses.keypoints_2d * scale,
        boxes=poses.boxes * scale.repeat(2),
    )


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    shape = (size[1], size[0])
    smooth = torch.nn.functional.interpolate(
        images.float(), shape, mode="bilinear", antialias=True, align_corners=False
    )
    return smooth.round_().clamp_(0, 255).to(torch.uint8)
