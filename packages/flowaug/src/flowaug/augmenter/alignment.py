"""Mean-shift alignment: an image is moved step by step to the nearby mode of its own distribution."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from flowaug.flows.circle import mean_transform, wrap_periodic
from flowaug.spaces import AffineSpace, Space
from flowaug.warp import compose as compose_matrices
from flowaug.warp import identity_matrices, warp


class Sampler(Protocol):
    """What alignment needs of an `Augmenter`."""

    space: Space

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n transforms per image and their log-densities."""
        ...


class Alignment(NamedTuple):
    """Aligned images and how they got there."""

    images: Tensor
    """(B, C, H, W), each read once from the original: no blur builds up."""
    matrices: Tensor
    """Sampling matrices (B, 2, 3) from the aligned image to the original."""
    means: Tensor
    """Mean transforms (steps, B, d) of every step."""


@torch.no_grad()
def align(
    augmenter: Sampler,
    images: Tensor,
    steps: int = 50,
    gamma: float = 0.1,
    n: int = 100,
    compose: Literal["group", "lie"] = "group",
    generator: torch.Generator | None = None,
) -> Alignment:
    r"""Images moved to the nearby mode of their distribution by mean-shift (paper, section 3).

    Every $I_k = A_{T_k}(I_0)$ is read from the original image.

    `lie` is the paper's $T_k = T_{k-1} + \gamma E[T]$, right where transforms commute (rotations alone, translations
    alone). `group` composes them, $A_{T_k} = A_{T_{k-1}} \exp(\gamma E[T])$, right for all. Means of periodic
    coordinates are circular. The fixed point is a mean of the distribution: images end close to each other, not at a
    pose named beforehand.

    Args:
        augmenter: Over an `AffineSpace`.
        images: I_0, (B, C, H, W).
        steps: 50 to align data sets, 10 for images in unusual poses (the paper's).
        gamma: Step size in (0, 1].
        n: Samples per mean.
        compose: How steps add up.
        generator: Of the samples.

    Returns:
        Images, sampling matrices and the means of the steps.

    Raises:
        ValueError: The space is not affine, or an option is wrong.
    """
    space = augmenter.space
    if not isinstance(space, AffineSpace):
        raise ValueError(f"alignment needs an AffineSpace, whose steps compose, got {type(space).__name__}")
    if compose not in ("group", "lie") or not 0 < gamma <= 1 or min(steps, n) < 1:
        raise ValueError(
            "expected compose group or lie, gamma in (0, 1], steps >= 1 and n >= 1, "
            f"got {compose!r}, {gamma}, {steps} and {n}"
        )
    size = (images.shape[-2], images.shape[-1])
    kind = torch.promote_types(images.dtype, torch.float32)
    matrices = identity_matrices(images.to(kind), images.shape[0])
    total, current, means = None, images, []
    for _ in range(steps):
        mean = mean_transform(augmenter.sample(current, n, generator)[0], space.periodic)
        means.append(mean)
        step = gamma * mean
        if compose == "group":
            matrices = compose_matrices(matrices, space.matrix(step, size).to(kind))
        else:
            total = step if total is None else total + step
            matrices = space.matrix(wrap_periodic(total, space.periodic), size).to(kind)
        current = warp(images, matrices[:, None], space.mode, space.padding, space.align_corners, space.fill)[:, 0]
    return Alignment(current, matrices, torch.stack(means))
