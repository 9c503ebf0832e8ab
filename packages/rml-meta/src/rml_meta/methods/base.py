"""What every few-shot method offers, and what the gradient-based ones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.norms import batch_statistics, evaluation_mode, support_buffers
from rml_meta.adaptation.precision import widen
from rml_meta.adaptation.problem import InnerProblem, LossFn, Params, apply_loss
from rml_meta.episode import check_set, leading_of, merge


class FewShotMethod(nn.Module, ABC):
    """A few-shot learner: `training_loss` to train it, `fit_support` and `predict` to use it.

    Calling the module is `training_loss`, so that it can be wrapped in DistributedDataParallel as it is. Using it
    never changes its state, buffers and modes included, and keeps no graph.

    Attributes:
        transductive: Whether `predict` normalises by the statistics of the query batch, as published code of
            gradient-based methods does. It then sees the whole query set at once, which flatters the accuracy: state
            it beside every figure. Else one query image is classified at a time: by the running statistics, or for
            gradient-based methods by those of the support set.
    """

    transductive: bool = False

    def forward(self, batch: Any) -> Tensor:
        """`training_loss(batch)`."""
        return self.training_loss(batch)

    @abstractmethod
    def training_loss(self, batch: Any) -> Tensor:
        """The loss (0-dim) of an `Episode`, with any leading dimensions."""

    @abstractmethod
    def fit_support(self, support_x: Tensor, support_y: Tensor) -> Any:
        """What `predict` needs of the support sets (*T, S, ...) with labels (*T, S)."""

    @abstractmethod
    def predict(self, state: Any, query_x: Tensor) -> Tensor:
        """Logits (*T, Q, N) of the query inputs (*T, Q, ...)."""


class Task(NamedTuple):
    """Parameters adapted to one task.

    Attributes:
        fast: Those that moved, by name.
        slow: The others, by name, with the statistics of the support set where a query is judged alone.
        step: Number of inner steps behind them.
    """

    fast: Params
    slow: Params
    step: int


class AdaptedTasks(NamedTuple):
    """State of a gradient-based method: one `Task` for each support set, of leading dimensions `leading`."""

    tasks: list[Task]
    leading: tuple[int, ...]


class GradientMethod(FewShotMethod):
    """A method that adapts parameters of a model to each support set.

    A subclass gives `adapt_task`. Batch norms normalise by the statistics of their batch, always: running statistics
    are neither read nor written, so no task leaks into the next.

    Args:
        model: Inputs to logits.
        loss_fn: Outputs and labels (M,), or targets (M, D), of one set to the loss (0-dim). A module's parameters are
            trained with those of the model.
    """

    transductive = True

    def __init__(self, model: nn.Module, loss_fn: LossFn = F.cross_entropy) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    @abstractmethod
    def adapt_task(self, support_x: Tensor, support_y: Tensor) -> Task:
        """Parameters adapted to one support set (S, ...) for use, without a graph."""

    def problem(self) -> InnerProblem:
        """How adapted parameters are applied."""
        return InnerProblem(self.model, self.loss_fn)

    def losses(self, outputs: Tensor, targets: Tensor, leading: int) -> Tensor:
        """Loss (*L) of each set of outputs (*L, M, ...) and labels (*L, M), or targets (*L, M, D).

        Half precision is computed in float32.

        Args:
            leading: Number of dimensions L.
        """
        outputs = widen(outputs)
        if self.loss_fn is F.cross_entropy and not targets.is_floating_point():
            return cross_entropies(outputs, targets)
        pairs = zip(merge(outputs, leading), merge(targets, leading), strict=True)
        return torch.stack([apply_loss(self.loss_fn, o, t) for o, t in pairs]).view(outputs.shape[:leading])

    def fit_support(self, support_x: Tensor, support_y: Tensor) -> AdaptedTasks:
        """Parameters adapted to each of the support sets (*T, S, ...) with labels (*T, S)."""
        check_set("support", support_x, support_y)
        leading = leading_of(support_x, support_y)
        pairs = zip(merge(support_x, len(leading)), merge(support_y, len(leading)), strict=True)
        with torch.no_grad(), evaluation_mode(self):
            tasks = []
            for x, y in pairs:
                with batch_statistics(self.model):
                    task = self.adapt_task(x, y)
                tasks.append(task if self.transductive else self._with_statistics(task, x))
        return AdaptedTasks(tasks, leading)

    def _with_statistics(self, task: Task, x: Tensor) -> Task:
        slow = self.problem().at_step(task.slow, task.step)
        return task._replace(slow={**task.slow, **support_buffers(self.model, {**slow, **task.fast}, x)})

    def predict(self, state: AdaptedTasks, query_x: Tensor) -> Tensor:
        """Logits (*T, Q, N) of the query inputs (*T, Q, ...)."""
        queries = merge(query_x, len(state.leading))
        problem = self.problem()
        with torch.no_grad(), evaluation_mode(self):
            if self.transductive:
                with batch_statistics(self.model):
                    logits = [
                        problem.logits(t.fast, t.slow, x, t.step) for t, x in zip(state.tasks, queries, strict=True)
                    ]
            else:
                logits = [problem.logits(t.fast, t.slow, x, t.step) for t, x in zip(state.tasks, queries, strict=True)]
        return torch.stack(logits).unflatten(0, state.leading) if state.leading else logits[0]


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (*L) of each set of logits (*L, Q, N) and labels (*L, Q); half precision in float32."""
    losses = F.cross_entropy(widen(logits).flatten(0, -2), labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(-1)
