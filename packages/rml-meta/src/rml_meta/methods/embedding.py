"""What methods that compare embeddings share: features of all tasks in one pass, class means, modes."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.norms import batch_statistics, evaluation_mode
from rml_meta.adaptation.precision import full_precision, widen
from rml_meta.episode import EpisodeLike, check_set, count_ways, flatten_tasks
from rml_meta.methods.base import FewShotMethod, cross_entropies


class EmbeddingMethod(FewShotMethod):
    """A method that embeds support and query and compares them, all tasks of a batch at once.

    A subclass gives `describe` and `compare`.

    Args:
        backbone: Inputs (B, ...) to features (B, D) or maps (B, C, H, W).
        ways: Number of classes N of a task; None reads it from the labels, which waits for the device.

    Attributes:
        train_ways: Number of classes of a task in training; None is as `ways`.
    """

    train_ways: int | None = None

    def __init__(self, backbone: nn.Module, ways: int | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.ways = ways

    @abstractmethod
    def describe(self, features: Tensor, labels: Tensor, ways: int) -> Any:
        """What is kept of support features (*T, S, ...) with labels (*T, S)."""

    @abstractmethod
    def compare(self, state: Any, features: Tensor) -> Tensor:
        """Logits (*T, Q, N) of query features (*T, Q, ...)."""

    def query_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss (0-dim) of logits (*T, Q, N) for labels (*T, Q): cross-entropy unless a subclass has another."""
        return cross_entropies(logits, labels).mean()

    def training_loss(self, batch: EpisodeLike) -> Tensor:
        """Mean query loss (0-dim) of the episode's tasks."""
        tasks, _ = flatten_tasks(batch)
        shots = tasks.support_y.shape[1]
        # one pass for all images; batch norms see the statistics of the whole batch
        features = embed(self.backbone, torch.cat([tasks.support_x, tasks.query_x], 1), 2)
        ways = count_ways(tasks.support_y, self.train_ways or self.ways)
        state = self.describe(features[:, :shots], tasks.support_y, ways)
        return self.query_loss(self.compare(state, features[:, shots:]), tasks.query_y)

    def fit_support(self, support_x: Tensor, support_y: Tensor) -> Any:
        """What `describe` keeps of the support sets (*T, S, ...) with labels (*T, S)."""
        check_set("support", support_x, support_y)
        with torch.no_grad(), self._use():
            features = embed(self.backbone, support_x, support_y.dim())
            return self.describe(features, support_y, count_ways(support_y, self.ways))

    def predict(self, state: Any, query_x: Tensor) -> Tensor:
        """Logits (*T, Q, N) of the query inputs (*T, Q, ...)."""
        with torch.no_grad(), self._use():
            return self.compare(state, embed(self.backbone, query_x, self._set_dims(state)))

    @abstractmethod
    def _set_dims(self, state: Any) -> int:
        """How many leading dimensions, tasks and samples, the query inputs have."""

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        with evaluation_mode(self), batch_statistics(self) if self.transductive else contextlib.nullcontext():
            yield


def embed(backbone: nn.Module, x: Tensor, leading: int) -> Tensor:
    """Features (*L, ...) of inputs (*L, ...) with `leading` dimensions L before those of one input."""
    features = backbone(x.flatten(0, leading - 1))
    return features.unflatten(0, x.shape[:leading])


class ClassMeans(NamedTuple):
    """Means (*T, N, ...) of the classes' features, 0 of a class without a support image, and which have one (*T, N)."""

    means: Tensor
    present: Tensor


def class_means(features: Tensor, labels: Tensor, ways: int) -> ClassMeans:
    """Of the features (*T, S, ...) of each class of labels (*T, S), in float32 at least."""
    flat = widen(features).flatten(labels.dim())
    with full_precision(flat):
        member = F.one_hot(labels, ways).to(flat.dtype).transpose(-1, -2)
        counts = member.sum(-1, keepdim=True)
        means = (member @ flat) / counts.clamp_min(1)
    return ClassMeans(means.unflatten(-1, features.shape[labels.dim() :]), counts[..., 0] > 0)


def only_present(logits: Tensor, present: Tensor) -> Tensor:
    """Logits (*T, Q, N) with those of classes without a support image, by `present` (*T, N), at minus infinity."""
    return logits.masked_fill(~present[..., None, :], -torch.inf)
