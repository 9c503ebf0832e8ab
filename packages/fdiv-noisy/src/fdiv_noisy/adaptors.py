"""Use of the losses inside other training frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def as_hf_loss(criterion: nn.Module, ignore_index: int = -100) -> Callable[..., Tensor]:
    """A loss for `transformers.Trainer(compute_loss_func=...)`.

    Args:
        criterion: A loss of this package with `reduction="mean"`.
        ignore_index: Labels of this value are not counted.

    Returns:
        `loss(outputs, labels, num_items_in_batch=None, **_)`. `outputs` has `logits` as an attribute or key, or
        is a tuple that starts with them. With `num_items_in_batch`, which the Trainer gives under gradient
        accumulation, the batch's mean is weighted by its share of those items.
    """

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **_: Any) -> Tensor:
        value = criterion(_logits(outputs), labels)
        if num_items_in_batch is None:
            return value
        items = labels.shape[0] if labels.is_floating_point() else (labels != ignore_index).sum()
        return value * items / num_items_in_batch

    return loss


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    if hasattr(outputs, "logits"):
        return outputs.logits
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]
