"""Relation networks (Sung et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.methods.embedding import ClassMeans, EmbeddingMethod, class_means, only_present


class RelationModule(nn.Module):
    """How alike two feature maps are: two blocks of convolution, norm, ReLU and 2x2 pooling, two linear layers.

    Args:
        channels: C of one map.
        hidden: Channels of the blocks.
        side: Height and width of the maps; from 10 on the convolutions are not padded, as published.
        between: Size of the layer between the linear ones.
        norm_momentum: Of the batch norms. The published code has 1, which keeps the last batch's statistics alone.
    """

    def __init__(
        self, channels: int, side: int, hidden: int = 64, between: int = 8, norm_momentum: float = 0.1
    ) -> None:
        super().__init__()
        padding = 0 if side >= 10 else 1
        blocks: list[nn.Module] = []
        for inputs in (2 * channels, hidden):
            pool = 2 if side >= 2 else 1  # a map of one pixel stays
            blocks += [
                nn.Conv2d(inputs, hidden, 3, padding=padding),
                nn.BatchNorm2d(hidden, momentum=norm_momentum),
                nn.ReLU(),
                nn.MaxPool2d(pool),
            ]
            side = (side - 2 + 2 * padding) // pool
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        self.score = nn.Sequential(nn.Linear(hidden * side * side, between), nn.ReLU(), nn.Linear(between, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        """Scores (B,) of two maps each, (B, 2C, H, W)."""
        return self.score(self.blocks(pairs))[:, 0]


class RelationNet(EmbeddingMethod):
    """Learn the comparison too: a network scores each query beside each class mean.

    Args:
        backbone: Inputs to feature maps (B, C, H, W).
        map_shape: (C, H, W) of the maps.
        ways: Number of classes; None reads it from the labels.
        loss: `mse` of the sigmoid of the score to the one-hot label, as published, or `ce`.
        hidden: Channels of the relation module.
        norm_momentum: See `RelationModule`.

    Raises:
        ValueError: There is no such loss, or the maps are not square.
    """

    def __init__(
        self,
        backbone: nn.Module,
        map_shape: tuple[int, int, int],
        ways: int | None = None,
        *,
        loss: Literal["mse", "ce"] = "mse",
        hidden: int = 64,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(backbone, ways)
        channels, height, width = map_shape
        if loss not in ("mse", "ce"):
            raise ValueError(f"unknown loss {loss!r}: expected mse or ce")
        if height != width:
            raise ValueError(f"the relation module takes square maps, got {height}x{width}")
        self.loss: Literal["mse", "ce"] = loss
        self.relation = RelationModule(channels, height, hidden, norm_momentum=norm_momentum)

    def describe(self, features: Tensor, labels: Tensor, ways: int) -> ClassMeans:
        """Class means (*T, N, C, H, W)."""
        return class_means(features, labels, ways)

    def compare(self, state: ClassMeans, features: Tensor) -> Tensor:
        """Scores (*T, Q, N); their sigmoid is the relation of 0 to 1."""
        means = state.means
        ways, queries = means.shape[-4], features.shape[-4]
        classes = means[..., None, :, :, :, :].expand(*features.shape[:-3], ways, *means.shape[-3:])
        images = features[..., None, :, :, :].expand_as(classes)
        both = torch.cat([classes, images], -3)
        scores = self.relation(both.flatten(0, -4)).view(*means.shape[:-4], queries, ways)
        return only_present(scores, state.present)

    def query_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared error of the relations, or cross-entropy of the scores."""
        if self.loss == "ce":
            return super().query_loss(logits, labels)
        wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        return F.mse_loss(logits.sigmoid(), wanted)

    def _set_dims(self, state: ClassMeans) -> int:
        return state.means.dim() - 3
