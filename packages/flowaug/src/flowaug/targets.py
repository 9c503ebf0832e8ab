"""Masks, keypoints and boxes that follow the transforms of their images, and dense predictions brought back."""

from __future__ import annotations

import torch
from torch import Tensor

from flowaug.spaces import GeometricSpace
from flowaug.warp import homogeneous, invert, normalised, pixels, warp


def warp_masks(space: GeometricSpace, masks: Tensor, w: Tensor) -> Tensor:
    """Masks moved with their images, by the nearest pixel and with zeros outside.

    Args:
        space: Of the transforms.
        masks: (B, C, H, W), of a floating type or integers below 2^24.
        w: (B, S, d).

    Returns:
        (B, S, C, H, W), of the type of `masks`.
    """
    matrices = space.matrix(w, (masks.shape[-2], masks.shape[-1]))
    values = masks if masks.is_floating_point() else masks.float()
    return warp(values, matrices, "nearest", "zeros", space.align_corners).to(masks.dtype)


def warp_points(space: GeometricSpace, points: Tensor, w: Tensor, size: tuple[int, int]) -> Tensor:
    """Points moved with their images: by the inverse of the sampling matrix.

    Args:
        space: Of the transforms.
        points: (B, P, 2) as (x, y) in pixels, pixel centres whole numbers.
        w: (B, S, d).
        size: (H, W) of the images.

    Returns:
        (B, S, P, 2) in pixels; they may leave the image.

    Raises:
        ValueError: Shapes do not fit.
    """
    if points.dim() != 3 or points.shape[-1] != 2 or len(points) != len(w):
        raise ValueError(f"expected points ({len(w)}, P, 2), got {tuple(points.shape)}")
    moves = invert(space.matrix(w, size))
    flat = normalised(points.to(moves), size, space.align_corners)[:, None]
    return pixels(flat @ moves[..., :2].mT + moves[..., None, :, 2], size, space.align_corners)


def warp_boxes(space: GeometricSpace, boxes: Tensor, w: Tensor, size: tuple[int, int], clip: bool = True) -> Tensor:
    """Upright boxes around the moved corners of boxes.

    Args:
        space: Of the transforms.
        boxes: (B, N, 4) as (x1, y1, x2, y2) in pixels, pixel centres whole numbers.
        w: (B, S, d).
        size: (H, W) of the images.
        clip: Whether to cut them at the image; a box outside it becomes empty.

    Returns:
        (B, S, N, 4).

    Raises:
        ValueError: Shapes do not fit.
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"expected boxes (B, N, 4), got {tuple(boxes.shape)}")
    corners = boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(len(boxes), -1, 2)
    moved = warp_points(space, corners, w, size).unflatten(2, (-1, 4))
    low, high = moved.amin(-2), moved.amax(-2)
    if clip:
        last = moved.new_tensor([size[1] - 1, size[0] - 1])
        low, high = low.clamp_min(0).minimum(last), high.clamp_min(0).minimum(last)
    return torch.cat([low, high], -1)


def unwarp(space: GeometricSpace, predictions: Tensor, w: Tensor) -> Tensor:
    """Dense predictions on views, brought back to the frame of the image, to be averaged there.

    Args:
        space: Of the transforms.
        predictions: (B, S, C, H, W), one map per view.
        w: (B, S, d), the transforms of the views.

    Returns:
        (B, S, C, H, W); 0 where a view does not show the image.
    """
    size = (predictions.shape[-2], predictions.shape[-1])
    inverses = invert(space.matrix(w, size)).flatten(0, 1)[:, None]
    back = warp(predictions.flatten(0, 1), inverses, space.mode, "zeros", space.align_corners)
    return back[:, 0].unflatten(0, w.shape[:2])


def motion_matrices(space: GeometricSpace, w: Tensor, size: tuple[int, int]) -> Tensor:
    """The transforms as homographies of pixels, for other libraries: boxes, points and warps of Kornia or OpenCV.

    Args:
        space: Of the transforms.
        w: (..., d).
        size: (H, W) of the images.

    Returns:
        (..., 3, 3): pixel coordinates (x, y, 1) of the content to where it moves, pixel centres whole numbers.
    """
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=w.dtype, device=w.device)
    moves = invert(space.matrix(w, size))
    flat = normalised(corners.to(moves), size, space.align_corners)
    origin, right, down = pixels(flat @ moves[..., :2].mT + moves[..., None, :, 2], size, space.align_corners).unbind(
        -2
    )
    return homogeneous(torch.stack([right - origin, down - origin, origin], -1))
