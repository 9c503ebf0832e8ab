"""Prototypical networks (Snell et al. 2017)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.precision import full_precision, widen
from rml_meta.methods.embedding import ClassMeans, EmbeddingMethod, class_means, only_present

Distance = Literal["sqeuclidean", "euclidean", "cosine"]


class ProtoNet(EmbeddingMethod):
    r"""Classify by the nearest class mean: logits $-\|q - p_c\|^2$.

    Args:
        backbone: Inputs to features (B, D); maps are flattened.
        ways: Number of classes; None reads it from the labels. A class without a support image is never chosen: its
            logit is minus infinity.
        distance: `sqeuclidean` as published. `euclidean`, of some libraries, has the same order but another loss.
            `cosine` is the similarity times `scale`.
        scale: Factor of the logits.

    Raises:
        ValueError: There is no such distance, or `scale` is not positive.
    """

    def __init__(
        self,
        backbone: nn.Module,
        ways: int | None = None,
        *,
        distance: Distance = "sqeuclidean",
        scale: float = 1.0,
    ) -> None:
        super().__init__(backbone, ways)
        if distance not in get_args(Distance):
            raise ValueError(f"unknown distance {distance!r}: expected one of {', '.join(get_args(Distance))}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}: a negative one prefers the farthest class")
        self.distance: Distance = distance
        self.scale = scale

    def describe(self, features: Tensor, labels: Tensor, ways: int) -> ClassMeans:
        """Class means (*T, N, D)."""
        return class_means(features.flatten(labels.dim()), labels, ways)

    def compare(self, state: ClassMeans, features: Tensor) -> Tensor:
        """Logits (*T, Q, N), in float32 at least: the squares of near points cancel in half precision."""
        queries = widen(features.flatten(state.means.dim() - 1))
        with full_precision(queries):
            return only_present(self.scale * self._nearness(queries, *state), state.present)

    def _nearness(self, queries: Tensor, means: Tensor, present: Tensor) -> Tensor:
        if self.distance == "cosine":
            return F.normalize(queries, dim=-1) @ F.normalize(means, dim=-1).transpose(-1, -2)
        if self.distance == "euclidean":
            return -torch.cdist(queries, means)
        return -_squared_distances(queries, means, present.sum(-1))

    def _set_dims(self, state: ClassMeans) -> int:
        return state.means.dim() - 1


def _squared_distances(x: Tensor, y: Tensor, count: Tensor) -> Tensor:
    """(*T, Q, N) of points x (*T, Q, D) and y (*T, N, D), `count` (*T) of them not 0, by one product."""
    # what all points share would cancel, and take the digits of the rest with it
    centre = y.sum(-2, keepdim=True) / count[..., None, None]
    x, y = x - centre, y - centre
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1)[..., None, :]
    return squares - 2 * x @ y.transpose(-1, -2)
