"""Nothing, and fixed policies of torchvision, behind the interface of an augmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowaug.augmenter import Augmenter


@dataclass(frozen=True)
class _NoSpace:
    """Transforms without coordinates."""

    names: tuple[str, ...] = ()
    dim: int = 0
    periodic: tuple[bool, ...] = ()

    def warp(self, images: Tensor, w: Tensor) -> Tensor:
        raise ValueError("the transforms of a policy have no parameters to warp by: call the augmenter")


class IdentityAugmenter(Augmenter):
    """Views that are the image itself: a classifier without augmentation. Parameters are (B, S, 0)."""

    def __init__(self) -> None:
        super().__init__(_NoSpace())

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Empty parameters (B, n, 0) and log-densities 0, (B, n)."""
        return x.new_zeros(x.shape[0], n, 0), x.new_zeros(x.shape[0], n)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """0, (B, S)."""
        return x.new_zeros(w.shape[:2])

    def warp(self, x: Tensor, w: Tensor) -> Tensor:
        """S times every image, (B, S, C, H, W)."""
        return x[:, None].expand(-1, w.shape[1], -1, -1, -1)


class PolicyAugmenter(IdentityAugmenter):
    """Views by RandAugment or TrivialAugment: nothing is learned, parameters are (B, S, 0) and log-densities 0.

    torchvision draws one operation per call, so views are made one by one; a baseline, not a fast path. Its random
    numbers are torch's global ones.

    Args:
        policy: `randaugment` (two operations at magnitude 9) or `trivialaugment` (one, at any magnitude).

    Raises:
        ValueError: The policy is unknown.
        ModuleNotFoundError: torchvision is not installed.
    """

    def __init__(self, policy: Literal["randaugment", "trivialaugment"] = "randaugment") -> None:
        super().__init__()
        if policy not in ("randaugment", "trivialaugment"):
            raise ValueError(f"policy must be randaugment or trivialaugment, got {policy!r}")
        try:
            from torchvision.transforms import v2
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("the fixed policies need torchvision: pip install torchvision") from error
        self.policy = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()

    def warp(self, x: Tensor, w: Tensor) -> Tensor:
        """S views of every image of [0, 1], (B, S, C, H, W), through 8 bits; of w only S counts."""
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        views = [self.policy(image) for image in pixels for _ in range(w.shape[1])]
        return torch.stack(views).unflatten(0, w.shape[:2]).to(x.dtype) / 255
