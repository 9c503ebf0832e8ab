"""Measures of invariance: of predictions under transforms, and of what the augmenter has learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowaug.augmenter import Augmenter
from flowaug.flows.circle import mean_transform, wrap
from flowaug.spaces import AffineSpace
from flowaug.warp import Padding, rotation_angle

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to class probabilities (B, K)."""


def rotate(images: Tensor, degrees: Tensor | float, padding: Padding = "zeros") -> Tensor:
    """Images (B, C, H, W) rotated counter-clockwise by degrees, a number or (B,), about their centre."""
    space = AffineSpace(("rot",), padding=padding)
    angles = torch.as_tensor(degrees, dtype=torch.float32, device=images.device).expand(len(images))
    return space.warp(images, angles[:, None, None] / 180)[:, 0]


@torch.no_grad()
def expected_kl(
    predict: Predict,
    images: Tensor,
    degrees: float = 10.0,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """KL(p(x) || p(R x)) per image, R rotating by a uniform angle in ±degrees (paper, figure 4; Zhou et al. 2022).

    Args:
        predict: Images to probabilities.
        images: (B, C, H, W).
        degrees: 10 for CIFAR10-LT and 180 for RotMNIST-LT in the paper.
        draws: Angles per image.
        generator: Of the angles, on the device of `images`.

    Returns:
        (B,), in nats; with logs of p + 1e-8, as published. Average it by class (`by_class`).
    """
    log_p = (predict(images) + 1e-8).log()
    total = torch.zeros_like(log_p[:, 0])
    for _ in range(draws):
        angles = degrees * (2 * torch.rand(len(images), device=images.device, generator=generator) - 1)
        total += (log_p.exp() * (log_p - (predict(rotate(images, angles)) + 1e-8).log())).sum(-1)
    return total / draws


def by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Means (K,) of values (N,) within every class of labels (N,); NaN for a class without any."""
    sums = values.new_zeros(num_classes).index_add_(0, labels, values)
    return sums / torch.bincount(labels, minlength=num_classes)


@torch.no_grad()
def invariance_width(
    augmenter: Augmenter, x: Tensor, n: int = 1000, dim: str = "rot", generator: torch.Generator | None = None
) -> Tensor:
    """Half the distance of the 1 % and 99 % quantiles of a sampled coordinate per image (paper, figures 3c and 6).

    A periodic coordinate is first centred on its circular mean, so that a range across ±180 degrees counts as what
    it is. Of the full circle it gives 0.98 of 180 degrees.

    Args:
        augmenter: Whose samples.
        x: Images (B, C, H, W).
        n: Samples per image.
        dim: Name of the coordinate.
        generator: Of the samples.

    Returns:
        (B,), in degrees for `rot`, else in units of w.

    Raises:
        ValueError: The space has no such coordinate.
    """
    names = augmenter.space.names
    if dim not in names:
        raise ValueError(f"the space has the coordinates {', '.join(names)}, not {dim!r}")
    place = names.index(dim)
    w = augmenter.sample(x, n, generator)[0][..., place : place + 1]
    if augmenter.space.periodic[place]:
        w = wrap(w - mean_transform(w, (True,))[:, None])
    low, high = torch.quantile(w[..., 0], w.new_tensor([0.01, 0.99]), dim=1)
    unit = math.degrees(augmenter.space.rot_max) if isinstance(augmenter.space, AffineSpace) and dim == "rot" else 1.0
    return unit * (high - low) / 2


def nearest_rotation(linear: Tensor) -> Tensor:
    """The rotations (..., 2, 2) nearest to matrices (..., 2, 2) in the Frobenius norm; the identity for a zero."""
    angle = rotation_angle(linear)
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def rotation_error(linear: Tensor) -> Tensor:
    """Relative distance |R* - M| / |M| of matrices (..., 2, 2) to the nearest rotation (paper, figure 5); (...).

    Of the linear part alone: the published notebook projects the 3x3 matrix with its constant row.
    """
    distance = torch.linalg.matrix_norm(nearest_rotation(linear) - linear)
    return distance / torch.linalg.matrix_norm(linear)


class InvarianceBound(NamedTuple):
    """How much a prediction changes with the image's pose, and the bounds of it."""

    change: Tensor
    """|p(c | x) - p(c | x')|, (..., K)."""
    bound: Tensor
    """(M - m) TV, (..., K): the tight one."""
    published: Tensor
    """2 (M - m) TV, (..., K): the paper's, which the factor 2 makes twice as large as need be."""


def tv_bound(g: Tensor, g_moved: Tensor, f: Tensor) -> InvarianceBound:
    r"""The total-variation bound of the change of a prediction (paper, section 3) on a common grid of transforms.

    With $\int (g - g') = 0$ any constant may be taken off f; $(M + m)/2$ gives $|p - p'| \le (M - m)\, TV(g, g')$,
    where the paper takes m off and pays a factor 2.

    Args:
        g: Weights (..., G) of the grid's transforms for an image; each row sums to one.
        g_moved: Weights (..., G) for the moved image, of the transforms that give the same views.
        f: Class probabilities (..., G, K) of the views.

    Returns:
        The change and its two bounds; M and m are taken where either weight is positive.
    """
    change = ((g - g_moved)[..., None] * f).sum(-2).abs()
    support = ((g > 0) | (g_moved > 0))[..., None]
    largest = f.masked_fill(~support, -torch.inf).amax(-2)
    smallest = f.masked_fill(~support, torch.inf).amin(-2)
    bound = (largest - smallest) * 0.5 * (g - g_moved).abs().sum(-1)[..., None]
    return InvarianceBound(change, bound, 2 * bound)


@torch.no_grad()
def invariance_bound(augmenter: Augmenter, predict: Predict, x: Tensor, steps: int, grid: int = 72) -> InvarianceBound:
    """The bound of every image when it is rotated by `steps` of the circle's `grid` equal parts.

    Rotations commute, as the bound's change of variable needs; other spaces of the paper do not. Resampling makes the
    rotated image's views differ a little from the image's own: f is that of the image as it is.

    Args:
        augmenter: Over the one coordinate `rot`, up to ±180 degrees.
        predict: The classifier: views (N, C, H, W) to probabilities (N, K).
        x: Images (B, C, H, W).
        steps: By how many parts of the circle the image is rotated counter-clockwise.
        grid: Parts of the circle.

    Returns:
        Change and bounds, (B, K) each.

    Raises:
        ValueError: The space is another.
    """
    space = augmenter.space
    if space.names != ("rot",) or not space.periodic[0]:
        raise ValueError(f"the bound needs rotations of the full circle alone, got {space.names}")
    w = (2 * (torch.arange(grid, device=x.device, dtype=x.dtype) + 0.5) / grid - 1)[None, :, None]
    w = w.expand(len(x), -1, -1)
    g = augmenter.log_prob(x, w).softmax(-1)
    moved = augmenter.log_prob(rotate(x, 360.0 * steps / grid), w).softmax(-1)
    views = space.warp(x, w)
    f = predict(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    return tv_bound(g, moved.roll(steps, -1), f)


@torch.no_grad()
def rotation_curve(predict: Predict, batches: Iterable[tuple[Tensor, Tensor]], degrees: Sequence[float]) -> Tensor:
    """Accuracy on images rotated by each angle (paper, figure 7c).

    Args:
        predict: Images to probabilities.
        batches: Images (B, C, H, W) and labels (B,).
        degrees: Angles, counter-clockwise.

    Returns:
        (len(degrees),), in [0, 1].

    Raises:
        ValueError: There are no batches.
    """
    correct, seen = torch.zeros(len(degrees)), 0
    for images, labels in batches:
        hits = [(predict(rotate(images, angle)).argmax(-1) == labels).sum() for angle in degrees]
        correct += torch.stack(hits).cpu()
        seen += len(labels)
    if not seen:
        raise ValueError("expected at least one batch of images and labels, got none")
    return correct / seen
