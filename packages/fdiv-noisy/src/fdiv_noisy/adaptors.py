"""Use of the losses inside other training frameworks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fdiv_noisy.schedules import WarmUp


@dataclass(frozen=True)
class HFLoss:
    """The function that `as_hf_loss` gives.

    Attributes:
        criterion: The loss.
        ignore_index: Labels of this value are not counted.
    """

    criterion: nn.Module
    ignore_index: int = -100

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **_: Any
    ) -> Tensor:
        """The loss of a model's outputs."""
        logits, labels = _rows(_logits(outputs), labels)
        value = self.criterion(logits, labels)
        if num_items_in_batch is None:
            return value
        items = labels.shape[0] if labels.is_floating_point() else (labels != self.ignore_index).sum()
        return value * items / num_items_in_batch


def as_hf_loss(criterion: nn.Module, ignore_index: int = -100) -> HFLoss:
    """A loss for `transformers.Trainer(compute_loss_func=...)`.

    Args:
        criterion: A loss of this package with `reduction="mean"`.
        ignore_index: Labels of this value are not counted.

    Returns:
        `loss(outputs, labels, num_items_in_batch=None, **_)`. `outputs` has `logits` as an attribute or key, or
        is a tuple that starts with them: (B, K), or with the classes last, as for tokens, (B, S, K) with labels (B, S).
        Where the labels say that they are second, (B, K, H, W) with (B, H, W), they are taken so.
        With `num_items_in_batch`, which the Trainer gives under gradient accumulation, the batch's mean is weighted by
        its share of those items.
    """
    return HFLoss(criterion, ignore_index)


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits with the classes last as (N, K), and their labels as (N,) or (N, K); others as they are."""
    last = labels.shape == (logits.shape if labels.is_floating_point() else logits.shape[:-1])
    if logits.ndim < 3 or not last:
        return logits, labels
    return logits.flatten(0, -2), labels.flatten(0, -2) if labels.is_floating_point() else labels.flatten()


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    if hasattr(outputs, "logits"):
        return outputs.logits
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]


def set_epochs(module: nn.Module, epoch: int) -> None:
    """Say the epoch, from 0, to every `WarmUp` in a module, or to the module itself if it is one."""
    for part in module.modules():
        if isinstance(part, WarmUp):
            part.set_epoch(epoch)


def lightning_callback(criterion: nn.Module | None = None) -> Any:
    """A Lightning callback that says the epoch to each `WarmUp` of the trained module, or to `criterion`.

    Raises:
        ModuleNotFoundError: Neither `lightning` nor `pytorch_lightning` is installed.
    """
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        from pytorch_lightning import Callback  # pyright: ignore[reportMissingImports]

    class SayEpoch(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: nn.Module) -> None:
            set_epochs(pl_module if criterion is None else criterion, trainer.current_epoch)

    return SayEpoch()


def hf_callback(criterion: nn.Module) -> Any:
    """A callback for `transformers.Trainer` that says the epoch to each `WarmUp` in `criterion`.

    Raises:
        ModuleNotFoundError: `transformers` is not installed.
    """
    from transformers import TrainerCallback  # pyright: ignore[reportMissingImports]

    class SayEpoch(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            set_epochs(criterion, int((state.epoch or 0) + 1e-6))

    return SayEpoch()
