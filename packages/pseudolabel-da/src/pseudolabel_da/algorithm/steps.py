"""The steps of an epoch in a plain loop, and what they are made of: loss and optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm.driver import Driver
from pseudolabel_da.algorithm.objective import AdaptationLoss
from pseudolabel_da.algorithm.planning import Rows
from pseudolabel_da.algorithm.settings import TRANSFER, Settings
from pseudolabel_da.algorithm.state import Domains
from pseudolabel_da.reading.augmentation import Augment
from pseudolabel_da.reading.augments import AUGMENTS, MILD
from pseudolabel_da.reading.labeled import Criterion
from pseudolabel_da.reading.prediction import LogitsFn, predict_logits
from pseudolabel_da.reading.reader import Reader
from pseudolabel_da.reading.samples import Samples
from pseudolabel_da.rivals.transfer import TransferLoss
from pseudolabel_da.selection.choice import make_selector
from pseudolabel_da.selection.rule import Selector


def make_adamw(settings: Settings) -> Callable[[Any], torch.optim.Optimizer]:
    """A maker of AdamW with the rate and decay of the settings."""
    return lambda parameters: torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def make_objective(
    settings: Settings, model: nn.Module, criterion: Criterion, logits_fn: LogitsFn | None = None
) -> AdaptationLoss | TransferLoss:
    """The loss of a step of the method; it holds the model.

    Raises:
        ValueError: The method needs a model with `features` and a linear `head`, and this one is not.
    """
    if settings.method in TRANSFER:
        if not hasattr(model, "features") or not isinstance(getattr(model, "head", None), nn.Linear) or logits_fn:
            raise ValueError(
                f"method {settings.method} needs a model with features(inputs) -> (B, D) before a linear layer `head`, "
                "and no logits_fn: give the model both, or take method pseudo"
            )
        return TransferLoss(
            model,
            criterion,
            settings.method,  # pyright: ignore[reportArgumentType]  # one of the three
            together=settings.passes == "mixed",
            coral_features=settings.coral.features,
            coral_form=settings.coral.form,
        )
    return AdaptationLoss(model, criterion, settings.passes, settings.batch_norm == "freeze_on_pseudo", logits_fn)


def train_epoch(
    objective: nn.Module, driver: Driver, epoch: int, steps: Sequence[Rows], autocast: torch.dtype | None = None
) -> Tensor:
    """One optimizer step for each of `steps`, in training mode; never waits for the device.

    Returns:
        The sum of the losses, 0-dim, on the device; 0 without a step.
    """
    total = torch.zeros(())
    objective.train()
    for source, target, weight in driver.batches(epoch, list(steps)):
        device = driver.reader.device.type
        with torch.autocast(device, dtype=autocast) if autocast else contextlib.nullcontext():
            loss = objective(source, target, weight)
        driver.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        driver.optimizer.step()
        total = total.to(loss.device) + loss.detach()
    return total


def fitted(augment: Augment | None, scale: Callable[[], tuple[float, float]]) -> Augment | None:
    """An augmentation of ours with the range of the data; a user's own as it is."""
    if augment is None or augment not in (*AUGMENTS.values(), MILD):
        return augment
    ours: Any = augment
    return partial(ours, value_range=scale())


def selector_of(settings: Settings) -> Selector:
    """The rule of selection that the settings name."""
    return make_selector(
        "ican" if settings.method == "ican" else settings.selector,
        rho=settings.rho,
        ceiling_aware=settings.ceiling_aware,
        threshold=settings.threshold,
        shares=settings.shares,
        prior=settings.prior,
    )


def classes_of(reader: Reader, data: Domains) -> int:
    """K, by the logits of one source sample."""
    return predict_logits(reader.model, [_first(reader, data.source)], reader.logits_fn).shape[1]


def checks_images(settings: Settings, reader: Reader, data: Domains) -> bool:
    """Whether answers are to be checked under slight changes: the settings say so, and the target are images."""
    if settings.check == "means" or not len(data.target):
        return False
    row = _first(reader, data.target)
    return row.ndim == 4 and row.is_floating_point()


def _first(reader: Reader, samples: Samples) -> Tensor:
    """The first sample as a batch (1, ...) that the model takes."""
    return reader.prepare(next(iter(samples.stream([torch.tensor([0])])))[0])
