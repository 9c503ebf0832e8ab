"""Masks, keypoints and boxes that follow the transforms of their images, and dense predictions brought back."""

from __future__ import annotations

import torch
from torch import Tensor

from flowaug.spaces import GeometricSpace
from flowaug.warp import homogeneous, invert, normalised, pixels, warp

_LEAST = 1e-3  # of a pixel must be seen for its value to count


def warp_masks(space: GeometricSpace, masks: Tensor, w: Tensor, fill: float = 0) -> Tensor:
    """Masks moved with their images, by the nearest pixel.

    Args:
        space: Of the transforms.
        masks: (B, C, H, W), of a floating type, integers below 2^53, or bool.
        w: (B, S, d).
        fill: What stands outside the image: a class of its own, or the index that a loss ignores (255 or -100).

    Returns:
        (B, S, C, H, W), of the type of `masks`.

    Raises:
        ValueError: Shapes do not fit, or the type of `masks` cannot hold `fill`.
    """
    if masks.dim() != 4:
        raise ValueError(f"expected masks (B, C, H, W), got {tuple(masks.shape)}")
    if not _holds(masks.dtype, fill):
        raise ValueError(f"masks of {masks.dtype} cannot hold the fill {fill}: convert them first, masks.long()")
    matrices = space.matrix(w, (masks.shape[-2], masks.shape[-1]))
    return warp(masks, matrices, "nearest", "zeros", space.align_corners, float(fill))


def valid_region(space: GeometricSpace, w: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels of the views show the image, whatever the padding puts elsewhere.

    Args:
        space: Of the transforms.
        w: (B, S, d).
        size: (H, W) of the images.

    Returns:
        (B, S, 1, H, W), bool: true where the pixel's centre is read inside the image.
    """
    ones = torch.ones(w.shape[0], 1, *size, device=w.device)
    return warp(ones, space.matrix(w, size), "nearest", "zeros", space.align_corners) > 0


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


def points_inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which points are visible: (...), bool, of points (..., 2) as (x, y) in pixels of an image (H, W).

    A point is inside within half a pixel of the outermost pixel centres, that is on the area of the pixels.
    """
    last = points.new_tensor([size[1], size[0]]) - 0.5
    return ((points >= -0.5) & (points <= last)).all(-1)


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
    """Dense predictions on views, brought back to the frame of the image.

    Where a pixel is only in part on a view, its value is the mean of the part that is: walls do not darken.

    Args:
        space: Of the transforms.
        predictions: (B, S, C, H, W), one map per view.
        w: (B, S, d), the transforms of the views.

    Returns:
        (B, S, C, H, W); 0 where a view does not show the image. `mean_unwarped` averages them.

    Raises:
        ValueError: Shapes do not fit.
    """
    back, coverage = _brought_back(space, predictions, w)
    return torch.where(coverage > _LEAST, back / coverage.clamp_min(_LEAST), 0.0)


def mean_unwarped(space: GeometricSpace, predictions: Tensor, w: Tensor, fill: float = 0.0) -> Tensor:
    """The mean over views of dense predictions, in the frame of the image, each view weighted by what it shows.

    Args:
        space: Of the transforms.
        predictions: (B, S, C, H, W), one map per view, such as class probabilities.
        w: (B, S, d), the transforms of the views.
        fill: Value of pixels that no view shows.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: Shapes do not fit.
    """
    back, coverage = (value.sum(1) for value in _brought_back(space, predictions, w))
    return torch.where(coverage > _LEAST, back / coverage.clamp_min(_LEAST), fill)


def _brought_back(space: GeometricSpace, predictions: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions read back with zeros outside, (B, S, C, H, W), and the share of each pixel seen, (B, S, 1, H, W)."""
    if predictions.dim() != 5 or w.dim() != 3 or predictions.shape[:2] != w.shape[:2]:
        raise ValueError(
            f"expected predictions (B, S, C, H, W) and w (B, S, d), got {tuple(predictions.shape)} and {tuple(w.shape)}"
        )
    size = (predictions.shape[-2], predictions.shape[-1])
    inverses = invert(space.matrix(w, size)).flatten(0, 1)[:, None]
    flat = predictions.flatten(0, 1)
    mode = "bilinear" if space.mode == "bicubic" else space.mode  # whose weights of the seen part can be negative
    both = torch.cat([flat, flat.new_ones(flat.shape[0], 1, *size)], 1)
    back = warp(both, inverses, mode, "zeros", space.align_corners)[:, 0].unflatten(0, w.shape[:2])
    return back[:, :, :-1], back[:, :, -1:]


def motion_matrices(space: GeometricSpace, w: Tensor, size: tuple[int, int]) -> Tensor:
    """The transforms as homographies of pixels, for other libraries: boxes, points and warps of Kornia or OpenCV.

    Args:
        space: Of the transforms.
        w: (..., d).
        size: (H, W) of the images.

    Returns:
        (..., 3, 3): pixel coordinates (x, y, 1) of the content to where it moves, pixel centres whole numbers.
    """
    return pixel_motions(space.matrix(w, size), size, space.align_corners)


def pixel_motions(matrices: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """`motion_matrices` of sampling matrices (..., 2, 3): (..., 3, 3)."""
    corners = matrices.new_tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    moves = invert(matrices)
    flat = normalised(corners, size, align_corners)
    origin, right, down = pixels(flat @ moves[..., :2].mT + moves[..., None, :, 2], size, align_corners).unbind(-2)
    return homogeneous(torch.stack([right - origin, down - origin, origin], -1))


def _holds(kind: torch.dtype, value: float) -> bool:
    """Whether a type has this value."""
    return kind.is_floating_point or torch.tensor(value).to(kind).to(torch.float64).item() == value
