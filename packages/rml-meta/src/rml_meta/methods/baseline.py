"""Baseline and Baseline++ (Chen et al. 2019): ordinary training, then a new head on frozen features."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.episode import merge
from rml_meta.methods.embedding import EmbeddingMethod, only_present
from rml_meta.networks.heads import CosineLinear, cosine_logits


class HeadState(NamedTuple):
    """Heads fitted to support sets: weight (T, N, D), second (bias or norm, (T, N)), which classes have a support image
    (T, N), and the tasks' dimensions."""

    weight: Tensor
    second: Tensor
    present: Tensor
    leading: tuple[int, ...]


class Baseline(EmbeddingMethod):
    """Train a classifier of all base classes; fit a new linear head to each support set, all tasks at once.

    `training_loss` takes batches of images and labels, no episodes.

    Args:
        backbone: Inputs to features (B, D).
        features: D.
        classes: Number of base classes.
        ways: Number of classes of a task; None reads it from the labels.
        fit_epochs: Passes over the support set (100 published).
        fit_batch: Samples of each step (4).
        fit_lr: Rate of the head's SGD (0.01; momentum and dampening 0.9, weight decay 0.001).
        seed: Of the order of the support set and of the new head, so that the same support set gives the same head.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        classes: int,
        ways: int | None = None,
        *,
        fit_epochs: int = 100,
        fit_batch: int = 4,
        fit_lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, ways)
        if min(features, classes, fit_epochs, fit_batch) < 1 or fit_lr <= 0:
            raise ValueError("features, classes, fit_epochs, fit_batch and fit_lr must be positive")
        self.features, self.seed = features, seed
        self.fit_epochs, self.fit_batch, self.fit_lr = fit_epochs, fit_batch, fit_lr
        self.head: nn.Module = nn.Linear(features, classes)

    def training_loss(self, batch: Any) -> Tensor:
        """Cross-entropy (0-dim) of `batch.images` (B, ...) and `batch.labels` (B,), or of the first two of a tuple."""
        images, labels = (batch.images, batch.labels) if hasattr(batch, "images") else batch[:2]
        return F.cross_entropy(self.head(self.backbone(images).flatten(1)), labels)

    def describe(self, features: Tensor, labels: Tensor, ways: int) -> HeadState:
        """Heads fitted to support features (*T, S, ...)."""
        leading = tuple(labels.shape[:-1])
        x = merge(features.flatten(labels.dim()).detach(), len(leading)).float()
        y = merge(labels, len(leading))
        generator = torch.Generator().manual_seed(self.seed)
        weight = self._fresh(len(y), ways, generator, x)
        second = self._second(weight)
        # momentum buffers and weight decay are each coordinate's own: one optimizer fits all heads apart
        optimizer = torch.optim.SGD([weight, second], self.fit_lr, 0.9, dampening=0.9, weight_decay=0.001)
        for rows in self._orders(x.shape[1], generator):
            rows = rows.to(x.device)
            with torch.enable_grad():
                logits = self.head_logits(x[:, rows], weight, second)
                loss = F.cross_entropy(logits.flatten(0, 1), y[:, rows].flatten(), reduction="sum") / len(rows)
                weight.grad, second.grad = torch.autograd.grad(loss, [weight, second])
            optimizer.step()
        present = F.one_hot(y, ways).sum(1) > 0
        return HeadState(weight.detach(), second.detach(), present, leading)

    def compare(self, state: HeadState, features: Tensor) -> Tensor:
        """Logits (*T, Q, N)."""
        x = merge(features.flatten(self._set_dims(state)), len(state.leading))
        logits = only_present(self.head_logits(x.to(state.weight.dtype), state.weight, state.second), state.present)
        return logits.unflatten(0, state.leading) if state.leading else logits[0]

    def head_logits(self, x: Tensor, weight: Tensor, second: Tensor) -> Tensor:
        """Logits (T, Q, N) of features (T, Q, D) by the tasks' own heads; `second` is the bias."""
        return x @ weight.transpose(-1, -2) + second[:, None]

    def _fresh(self, tasks: int, ways: int, generator: torch.Generator, like: Tensor) -> Tensor:
        # the same first weights for each task; on the CPU, so that every device has the same
        bound = self.features**-0.5
        first = (2 * torch.rand(ways, self.features, generator=generator) - 1) * bound
        return first.to(like).expand(tasks, -1, -1).clone().requires_grad_()

    def _second(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight[..., 0]).requires_grad_()

    def _orders(self, samples: int, generator: torch.Generator) -> list[Tensor]:
        orders = [torch.randperm(samples, generator=generator) for _ in range(self.fit_epochs)]
        return [rows for order in orders for rows in order.split(self.fit_batch)]

    def _set_dims(self, state: HeadState) -> int:
        return len(state.leading) + 1


class BaselinePP(Baseline):
    """Baseline with cosine heads (Baseline++).

    Args:
        backbone: Inputs to features (B, D).
        features: D.
        classes: Number of base classes.
        ways: Number of classes of a task; None reads it from the labels.
        scale: Of the cosines; None is 2 up to 200 base classes, else 10, as published.
        **options: Further ones of `Baseline`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        classes: int,
        ways: int | None = None,
        *,
        scale: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, features, classes, ways, **options)
        self.scale = (2.0 if classes <= 200 else 10.0) if scale is None else scale
        self.head = CosineLinear(features, classes, self.scale)

    def head_logits(self, x: Tensor, weight: Tensor, second: Tensor) -> Tensor:
        """Logits (T, Q, N) of features (T, Q, D) by the tasks' own heads; `second` is the classes' norm."""
        return cosine_logits(x, weight, second, self.scale)

    def _second(self, weight: Tensor) -> Tensor:
        return torch.linalg.vector_norm(weight.detach(), dim=-1).requires_grad_()
