r"""What most losses here share: they are linear in the label.

Each has a value for every class; a hard label picks one, a soft label averages them. So one module holds all options of
`nn.CrossEntropyLoss`, and a loss is a subclass that gives `class_values`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fdiv_noisy.labels import Labels, check_options, flatten, full_precision, make_labels, reduce


class LabelLinearLoss(nn.Module, ABC):
    """A loss with one value per class; subclasses give `class_values`.

    Args:
        weight: (K,) class weights.
        ignore_index: Hard targets of this value count for nothing.
        label_smoothing: Share of each label spread over all classes, in [0, 1].
        reduction: `mean` (weighted), `sum` or `none`.

    Shape:
        - logits: (B, K) or (B, K, d1, ...).
        - targets: (B, d1, ...) class indices, or probabilities of the logits' shape.
    """

    weight: Tensor | None
    coefficients: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
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

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, reduced."""
        shape = targets.shape if not targets.is_floating_point() else logits.shape[:1] + logits.shape[2:]
        logits, targets = flatten(logits, targets)
        weight, coefficients = (None if x is None else x.to(logits) for x in (self.weight, self.coefficients))
        with full_precision(logits):
            labels = make_labels(
                targets,
                logits,
                weight=weight,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                coefficients=coefficients,
            )
            values = self.sample_values(self.class_values(logits.log_softmax(1)), labels)
            return reduce(values, labels, self.reduction, shape)

    def sample_values(self, values: Tensor, labels: Labels) -> Tensor:
        """Weighted loss (N,) of each sample from those of every label (N, K)."""
        return labels.contract(values)
