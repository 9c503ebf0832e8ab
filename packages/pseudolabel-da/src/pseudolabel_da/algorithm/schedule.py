"""What an epoch does: a pure function of the settings, the lengths of the phases, and what the run has come to.

`IncrementalPseudoLabeler.fit` and the command both ask here, and decide nothing of it themselves.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.algorithm.planning import Rows, plan_epoch, plan_source
from pseudolabel_da.algorithm.settings import TRANSFER, Settings
from pseudolabel_da.rivals.schedules import lee_weight, reversal_strength
from pseudolabel_da.seeds import make_generator

LEAST_RATE = 0.02  # of the learning rate, where it falls


class EpochPlan(NamedTuple):
    """What one epoch does.

    Attributes:
        epoch: Its number, from 0, over both phases.
        pretrain: Epochs of the first phase, on labelled samples alone.
        epochs: Epochs of the adaptation, which come after those.
        selects: Whether it begins with a selection.
        pool: Which target rows its steps are drawn from: `labelled` (those with a pseudo-label), `all`, or `none`.
        begins: Whether it is the first of the adaptation.
        smoothing: Label smoothing of its steps.
        estimates: Whether it ends with batch norm's statistics estimated on the target.
        scores: Whether the model at its end is a candidate for the checkpoint.
    """

    epoch: int
    pretrain: int
    epochs: int
    selects: bool
    pool: Literal["none", "labelled", "all"]
    begins: bool
    smoothing: float
    estimates: bool
    scores: bool

    @property
    def adapting(self) -> bool:
        """Whether it is of the adaptation."""
        return self.epoch >= self.pretrain

    @property
    def number(self) -> int:
        """Its number within its phase, from 0."""
        return self.epoch - self.pretrain if self.adapting else self.epoch


def schedule_epoch(settings: Settings, epoch: int, pretrain: int, epochs: int, stopped: bool = False) -> EpochPlan:
    """The plan of an epoch.

    Args:
        settings: As the method makes them: `Settings.in_use`.
        epoch: Its number, from 0, over both phases.
        pretrain: Epochs of the first phase.
        epochs: Epochs of the adaptation.
        stopped: Whether the adaptation has ended before its last epoch; what is left of it does nothing.
    """
    adapting, transfers = epoch >= pretrain, settings.method in TRANSFER
    scores = settings.validator != "last" and (adapting or epochs == 0)
    return EpochPlan(
        epoch,
        pretrain,
        epochs,
        selects=adapting and not transfers and not stopped and (epoch - pretrain) % settings.period == 0,
        pool="none" if not adapting or stopped else "all" if transfers else "labelled",
        begins=epoch == pretrain,
        smoothing=settings.label_smoothing if adapting else settings.pretrain_label_smoothing,
        estimates=settings.batch_norm == "target" and (scores or epoch + 1 == pretrain + epochs),
        scores=scores,
    )


def epoch_steps(plan: EpochPlan, settings: Settings, rows: Tensor, own: int, labeled: int) -> list[Rows]:
    """The steps of an epoch.

    Args:
        plan: Of the epoch.
        settings: As the method makes them.
        rows: (P,) the target rows of the plan's pool, after the selection if there was one.
        own: Number of source samples.
        labeled: Number of labelled target samples, whose rows follow those of the source.
    """
    if not plan.adapting:
        return supervised_steps(settings, "pretrain order", plan.number, own + labeled, rows.device)
    if plan.pool == "none":
        return []
    if not rows.numel():
        every = settings.on_empty == "source_epoch"
        return supervised_steps(settings, "source epoch", plan.number, own + labeled, rows.device) if every else []
    steps = joint_steps(settings, rows, own, labeled, plan.number)
    if settings.order == "paper":
        return steps
    # the published code trains on the source before it selects: that pass ends the epoch before, in which nothing has
    # happened since to the pool
    later = joint_steps(settings, rows, own, labeled, plan.number + 1) if plan.number + 1 < plan.epochs else []
    return [step for step in steps if step.source is None] + [step for step in later if step.pseudo is None]


def joint_steps(settings: Settings, rows: Tensor, own: int, labeled: int, number: int) -> list[Rows]:
    """`plan_epoch` with these settings."""
    return plan_epoch(
        rows,
        own,
        labeled,
        seed=settings.seed,
        epoch=number,
        batch_size=settings.batch_size,
        passes=settings.passes,
        replay=settings.replay,
        oversample=settings.oversample,
        replay_share=settings.replay_share,
    )


def supervised_steps(settings: Settings, phase: str, number: int, size: int, device: torch.device) -> list[Rows]:
    """Steps on all `size` labelled samples, in random order."""
    order = torch.randperm(size, generator=make_generator(settings.seed, phase, number))
    return plan_source(order.to(device), settings.batch_size)


def rate_factor(plan: EpochPlan, settings: Settings, done: float) -> float:
    """The factor of the learning rate when a share `done` of the epoch is behind, in [LEAST_RATE, 1]."""
    if not settings.anneal:
        return 1.0
    now = plan.epoch + done
    within = (now - plan.pretrain) % settings.period / settings.period if plan.adapting else now / plan.pretrain
    return max(LEAST_RATE, (1 + math.cos(math.pi * within)) / 2)


def target_weight(plan: EpochPlan, settings: Settings, done: float) -> float:
    """The weight of the loss on the target when a share `done` of the epoch is behind."""
    past = (plan.epoch + done - plan.pretrain) / max(plan.epochs, 1)
    if settings.method == "lee":
        return lee_weight(past, settings.lee.start, settings.lee.end, settings.lee.final)
    if settings.method == "dann":
        return reversal_strength(max(past, 0.0))
    return settings.coral.weight if settings.method == "coral" else settings.weight_at(plan.number)
