"""FlexMatch's thresholds: lower for classes that are learned less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pseudolabel_da.selection.checks import check_floor
from pseudolabel_da.selection.rule import Selection, most_confident, select_above


def flexible_thresholds(
    probs: Tensor, threshold: float = 0.95, mapping: Literal["convex", "linear"] = "convex"
) -> Tensor:
    r"""A threshold for each class from how well it is learned (Zhang et al. 2021, eq. 5-11, over the whole pool).

    With $\sigma_c$ the number of samples predicted c above the threshold, and the unused ones counted as a class of
    their own while they are many (the paper's warm-up),

    $$\beta_c = \sigma_c / \max(\max_k \sigma_k,\ N - \sum_k \sigma_k), \qquad T_c = M(\beta_c)\, \tau$$

    with $M(x) = x / (2 - x)$ (convex) or x.

    Args:
        probs: (N, K) probabilities.
        threshold: $\tau$, that of the best learned class.
        mapping: M.

    Returns:
        (K,) thresholds, of the type of probs, from 0 (a class nobody is sure of) to `threshold`.

    Raises:
        ValueError: The mapping is unknown.
    """
    check_mapping(mapping)
    labels, confidence = most_confident(probs)
    learned = torch.bincount(labels, confidence > threshold, minlength=probs.shape[-1])
    unused = probs.shape[-2] - learned.sum()
    beta = learned / torch.maximum(learned.max(), unused).clamp_min(1)
    return ((beta / (2 - beta) if mapping == "convex" else beta) * threshold).to(probs.dtype)


def check_mapping(mapping: str) -> None:
    """Raise ValueError unless there is a mapping of that name."""
    if mapping not in ("convex", "linear"):
        raise ValueError(f"unknown mapping {mapping!r}: expected convex or linear")


@dataclass(frozen=True)
class FlexThreshold:
    """Samples more confident than the flexible threshold of their class, and than a floor.

    Attributes:
        threshold: That of the best learned class.
        mapping: `convex` or `linear`.
        floor: No class takes samples at or below it. FlexMatch has none (0), fit for batches that are drawn
            again and again; a pool that keeps its labels for good should have one.
    """

    threshold: float = 0.95
    mapping: Literal["convex", "linear"] = "convex"
    floor: float = 0.5

    def __post_init__(self) -> None:
        check_floor(self.threshold, self.floor)
        check_mapping(self.mapping)

    def select(self, probs: Tensor, **context: Any) -> Selection:
        """The selection among (N, K); the context is not used."""
        wanted = flexible_thresholds(probs, self.threshold, self.mapping)
        return select_above(probs, wanted.clamp_min(self.floor))
