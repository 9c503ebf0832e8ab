r"""What most losses here share: they are linear in the label.

Each has a value for every class; a hard label picks one, a soft label averages them. So one module holds all options of
`nn.CrossEntropyLoss`, and a loss is a subclass that gives `class_values`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fdiv_noisy.labels import (
    Labels,
    are_plain,
    check_options,
    flatten,
    full_precision,
    make_labels,
    reduce,
    reduce_plain,
    says_which_label,
    value_shape,
)

NEVER = -(2**62)  # an ignored label that no batch has: one that is no class is refused, not skipped


class LabelLinearLoss(nn.Module, ABC):
    """A loss with one value per class; subclasses give `class_values`.

    Args:
        weight: (K,) class weights.
        ignore_index: Hard targets of this value count for nothing. None saves looking for them on a GPU.
        label_smoothing: Share of each label spread over all classes, in [0, 1].
        reduction: `mean` (weighted), `sum` or `none`.

    Shape:
        - logits: (K,), (B, K) or (B, K, d1, ...). A class with logit -inf has probability 0.
        - targets: (), (B,) or (B, d1, ...) class indices, or probabilities of the logits' shape.

    Raises:
        ValueError: An option, a shape or a target is wrong.
    """

    weight: Tensor | None
    coefficients: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_options(reduction, label_smoothing, weight)
        self.register_buffer("weight", weight)
        self.register_buffer("coefficients", None)  # (K, K) bias correction, where a subclass has one
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    @abstractmethod
    def class_values(self, log_p: Tensor) -> Tensor:
        """The loss (N, K) that each label would have, from log-probabilities (N, K)."""

    def label_values(self, log_p: Tensor, hard: Tensor) -> Tensor:
        """The loss (N,) of the labels `hard` (N,).

        As it stands for losses whose value of a class depends on that class's probability alone.
        """
        return self.class_values(log_p.gather(1, hard[:, None]))[:, 0]

    def plain_values(self, logits: Tensor, hard: Tensor) -> Tensor:
        """The loss (N,) of each sample, from its logits (N, K), where every label has weight one."""
        return self.label_values(logits.log_softmax(1), hard)

    def sample_values(self, log_p: Tensor, labels: Labels) -> Tensor:
        """The weighted loss (N,) of each sample."""
        if labels.hard is not None:
            return labels.weight * self.label_values(log_p, labels.hard)
        return labels.contract(self.class_values(log_p))

    @says_which_label
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, reduced."""
        shape = value_shape(logits)
        logits, targets = flatten(logits, targets)
        with full_precision(logits):
            if are_plain(targets, self.ignore_index, self.weight, self.coefficients, self.label_smoothing):
                with contextlib.suppress(RuntimeError, IndexError):
                    return reduce_plain(self.plain_values(logits, targets), self.reduction, shape)
            labels = self._labels(targets, logits)
            return reduce(self.sample_values(logits.log_softmax(1), labels), labels, self.reduction, shape)

    def _labels(self, targets: Tensor, logits: Tensor) -> Labels:
        weight, coefficients = (None if x is None else x.to(logits) for x in (self.weight, self.coefficients))
        return make_labels(
            targets,
            logits,
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            coefficients=coefficients,
        )


class OwnProbabilityLoss(LabelLinearLoss):
    """A loss whose value of a class depends on that class's probability alone: `class_values` is elementwise."""

    def plain_values(self, logits: Tensor, hard: Tensor) -> Tensor:
        """(N,)."""
        return self.class_values(-cross_entropy(logits, hard, reduction="none", ignore_index=NEVER))
