"""The one driver of the algorithm: carries out the plan of each epoch, whoever runs the steps.

`enter` an epoch, train on its `batches`, `finish` it. `IncrementalPseudoLabeler` does so in a plain loop, the command
in one with checkpoints, several processes and resuming within an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pseudolabel_da.algorithm.fetching import Fetcher, StepBatch
from pseudolabel_da.algorithm.periods import PeriodContext, advance, stop_reason
from pseudolabel_da.algorithm.planning import Rows
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.algorithm.schedule import EpochPlan, epoch_steps, rate_factor, schedule_epoch, target_weight
from pseudolabel_da.algorithm.settings import TRANSFER, Settings
from pseudolabel_da.algorithm.state import Domains, State
from pseudolabel_da.diagnosis.error import Doubts, Opinion
from pseudolabel_da.diagnosis.shares import ClassShares, estimate_class_shares
from pseudolabel_da.diagnosis.validators import TARGET_VALIDATORS, accuracy
from pseudolabel_da.reading.augmentation import Augment
from pseudolabel_da.reading.identity import check_labels
from pseudolabel_da.reading.prediction import probabilities
from pseudolabel_da.reading.reader import Reader
from pseudolabel_da.seeds import derive_seed, make_generator
from pseudolabel_da.selection.calibration import fit_temperature
from pseudolabel_da.selection.rule import Selector
from pseudolabel_da.selection.thresholds import confidence_ceiling

VALIDATED = 5000  # target samples that a validator looks at; soft neighbourhoods cost their square


class Processes(Protocol):
    """The processes that train together, as `robustvision_core`'s runtime has them."""

    rank: int
    world_size: int

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes."""
        ...

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes."""
        ...


class Alone:
    """One process."""

    rank = 0
    world_size = 1

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """`value`."""
        return value

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """`value`."""
        return value


class SourceMeasures(NamedTuple):
    """What a selection needs of source validation data.

    Attributes:
        accuracy: On them, or what stands for it.
        temperature: To divide logits by.
        calibrated: The temperature that fits them, whether or not logits are divided by it.
        logits: (M, K) of them, or None without data.
        labels: (M,) theirs, or None.
    """

    accuracy: float | None
    temperature: Tensor | float = 1.0
    calibrated: Tensor | float = 1.0
    logits: Tensor | None = None
    labels: Tensor | None = None


class Driver:
    """Carries out epochs. All it does is a pure function of the settings, the epoch and the state.

    Args:
        settings: The options.
        selector: Which samples receive a label.
        reader: How samples reach the model.
        data: What is trained on.
        state: What the run has come to; it is moved on.
        optimizer: Whose learning rate falls, and whose memory is cleared where the settings say so.
        pretrain: Epochs of the first phase.
        epochs: Epochs of the adaptation.
        augment: Of target samples, or None.
        source_augment: Of source samples, or None.
        weight_fn: Inputs (B, ...) to domain weights (B,), or None.
        check: Slight changes that the model's answers should survive, or None where inputs are no images.
        processes: That train together.
        second: What a network adapted from another seed says of the target, or None without one.

    Raises:
        ValueError: The second network is of other samples, or the settings ask for one and there is none.
    """

    def __init__(
        self,
        settings: Settings,
        selector: Selector,
        reader: Reader,
        data: Domains,
        state: State,
        optimizer: torch.optim.Optimizer,
        *,
        pretrain: int,
        epochs: int,
        augment: Augment | None = None,
        source_augment: Augment | None = None,
        weight_fn: Callable[[Tensor], Tensor] | None = None,
        check: Augment | None = None,
        processes: Processes | None = None,
        second: Opinion | None = None,
    ) -> None:
        self.settings, self.selector, self.reader = settings.in_use, selector, reader
        self.data, self.state, self.optimizer = data, state, optimizer
        self.pretrain, self.epochs = pretrain, epochs
        # one domain augmented alone would make the shift that the transfer methods undo
        self.augment = source_augment if settings.method in TRANSFER else augment
        self.source_augment, self.weight_fn, self.check = source_augment, weight_fn, check
        self.processes: Processes = processes or Alone()
        self.second = second
        if second is not None and len(second.at(0)) != len(data.target):
            raise ValueError(f"the second network is of {len(second.at(0))} target samples, not {len(data.target)}")
        if second is None and epochs and settings.check == "two":
            raise ValueError("check='two' needs what a second network says: give fit(second=other.opinion)")

    @property
    def total(self) -> int:
        """Epochs of both phases."""
        return self.pretrain + self.epochs

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, by the state as it is."""
        return schedule_epoch(self.settings, epoch, self.pretrain, self.epochs, bool(self.state.stopped))

    def generator_seed(self, epoch: int) -> int:
        """What to seed torch's own generators with at the start of an epoch, so that dropout depends on it alone."""
        rank = (self.processes.rank,) if self.processes.rank else ()
        return derive_seed(self.settings.seed, "epoch", epoch, *rank)

    def enter(self, epoch: int) -> None:
        """Begin an epoch: clear the optimizer and select, where the plan says so (Algorithm 1, lines 5-13)."""
        plan = self.plan(epoch)
        if plan.begins and self.settings.reset_optimizer:
            self.optimizer.state.clear()
        if plan.selects and len(self.data.target):
            self._select(plan)

    def steps(self, epoch: int) -> list[Rows]:
        """The steps of an epoch that was entered."""
        plan, pool = self.plan(epoch), self.state.pool
        empty = torch.zeros(0, dtype=torch.long, device=self.reader.device)
        rows = empty if pool is None else pool.rows()
        if plan.pool == "all":
            rows = torch.arange(len(self.data.target), device=self.reader.device)
        if plan.pool == "labelled" and not rows.numel() and self.settings.on_empty == "stop":
            self.state.stopped = "no sample has a pseudo-label"
        steps = epoch_steps(plan, self.settings, rows, self.data.own, self.data.labeled)
        if steps:
            self.state.smoothing = plan.smoothing
        return steps

    def batches(self, epoch: int, steps: list[Rows], start: int = 0) -> Iterator[StepBatch]:
        """The batches of an epoch's steps from number `start` on, each at its learning rate."""
        plan = self.plan(epoch)
        weighted = self.weight_fn is not None and plan.adapting
        fetcher = Fetcher(
            self.data.source,
            self.data.target,
            self.state.pool,
            self.reader.prepare,
            augment=self.augment,
            source_augment=self.source_augment,
            seed=self.settings.seed,
            device=self.reader.device,
            weighted=weighted,
            classes=self.data.classes,
        )
        for number, source, target in fetcher.batches(steps, epoch, start):
            done = number / len(steps)
            if self.settings.anneal:
                self._set_rate(rate_factor(plan, self.settings, done))
            yield StepBatch(source, target, target_weight(plan, self.settings, done))

    def finish(self, epoch: int) -> float | None:
        """End an epoch: estimate statistics and score the model, where the plan says so."""
        plan = self.plan(epoch)
        if plan.estimates:
            self._estimate_statistics(epoch + 1)
        return self._score() if plan.scores else None

    def end_early(self) -> None:
        """What the last epoch would have ended with, where the adaptation stopped before it."""
        if self.settings.batch_norm == "target":
            self._estimate_statistics(self.total)

    def _set_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("initial_lr", self.settings.lr) * factor

    def _select(self, plan: EpochPlan) -> None:
        """Label the pool and select; every process comes to the same selection."""
        state, settings, pool = self.state, self.settings, self._pool
        self._agree_on_statistics()
        source = self._measure_source()  # before the statistics are the target's
        if settings.batch_norm == "target":
            self._estimate_statistics(plan.number)
            self._agree_on_statistics()
        smoothing = 0.0 if settings.calibrate else state.smoothing or 0.0  # calibration lifts the ceiling
        logits, weight = self._pool_outputs()
        state.answer(logits, source.logits)
        context = PeriodContext(
            plan.number,
            source.accuracy,
            confidence_ceiling(smoothing, pool.classes),
            weight,
            tuple(state.periods),
            self.data.truth,
            self._doubts(plan.number, logits, source),
            self._class_shares(plan.number, logits, source),
            self.data.names,
        )
        record = advance(pool, self.selector, probabilities(logits, source.temperature), settings, context)
        state.periods.append(record)
        state.barren = 0 if record.selected or not record.candidates else state.barren + 1
        state.stopped = stop_reason(record, state.barren, settings)

    def _measure_source(self) -> SourceMeasures:
        """What the selection needs of source validation data."""
        if self.data.val is None:
            return SourceMeasures(self.data.accuracy)
        val, mean = self.reader.outputs(self.data.val), self.processes.all_reduce_mean
        check_labels(val.labels, val.logits.shape[1], "the validation set")
        fitted = mean(fit_temperature(val.logits, val.labels).to(val.logits))
        temperature = fitted if self.settings.calibrate else 1.0
        return SourceMeasures(
            float(mean(accuracy(val.logits, val.labels))), temperature, fitted, val.logits, val.labels
        )

    def _doubts(self, number: int, logits: Tensor, source: SourceMeasures) -> Doubts:
        """What speaks against labels that the pool may get."""
        jittered = None
        if self.check is not None and source.labels is not None:  # else no estimate could be made of it
            names = "check", number, self.processes.rank
            generator = make_generator(self.settings.seed, *names, device=self.reader.device)
            change = self.check
            jittered = self._pool_outputs(lambda inputs: change(inputs, generator))[0].argmax(1)
        state = self.state
        return Doubts(logits, jittered, source.labels, state.opening, self.second, len(state.periods))

    def _class_shares(self, number: int, logits: Tensor, source: SourceMeasures) -> ClassShares:
        """Class shares of the target by its predictions; they are taken to be those of the source at first."""
        size, confusion = logits.shape[1], None
        known = torch.ones(size, device=logits.device)
        if source.labels is not None and source.logits is not None:
            known = torch.bincount(source.labels, minlength=size) + 1e-3
            pairs = source.labels * size + source.logits.argmax(1)
            confusion = torch.bincount(pairs, minlength=size * size).view(size, size).float()
        seed = derive_seed(self.settings.seed, "shares", number)
        return estimate_class_shares(probabilities(logits, source.calibrated), known, seed, confusion=confusion)

    def _pool_outputs(self, change: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K) and domain weights (N,) of the target samples; each process computes its part of them."""
        world, rank, size = self.processes.world_size, self.processes.rank, len(self.data.target)
        if world == 1:
            logits, _, weight = self.reader.outputs(self.data.target, self.weight_fn, change=change)
            return logits, weight
        ends = torch.linspace(0, size, world + 1).long().tolist()
        part = torch.arange(ends[rank], ends[rank + 1], device=self.reader.device)
        own, _, weight = self.reader.outputs(self.data.target, self.weight_fn, part, change)
        return self._gathered(own, part, size), None if weight is None else self._gathered(weight, part, size)

    def _gathered(self, own: Tensor, rows: Tensor, size: int) -> Tensor:
        whole = own.new_zeros(size, *own.shape[1:])
        whole[rows] = own
        return self.processes.all_reduce_sum(whole)

    def _agree_on_statistics(self) -> None:
        """Give every process the mean of their running statistics, which each keeps of its own batches."""
        for buffer in self.reader.model.buffers():
            if self.processes.world_size > 1 and buffer.is_floating_point():
                buffer.copy_(self.processes.all_reduce_mean(buffer))

    def _estimate_statistics(self, epoch: int) -> None:
        generator = make_generator(self.settings.seed, "statistics", epoch)
        self.reader.estimate_statistics(self.data.target, self.settings.statistics_batches, generator)

    def _score(self) -> float | None:
        """The validator's score of the model as it is, None without the data it takes."""
        if self.settings.validator == "source_accuracy":
            score = None if self.data.val is None else self.reader.accuracy(self.data.val)
        else:
            order = torch.randperm(len(self.data.target), generator=make_generator(self.settings.seed, "validator"))
            rows = order[:VALIDATED].to(self.reader.device)
            probs = probabilities(self.reader.outputs(self.data.target, rows=rows).logits)
            score = float(TARGET_VALIDATORS[self.settings.validator](probs))
        if score is None or self.processes.world_size == 1:
            return score
        return float(self.processes.all_reduce_mean(torch.tensor(score, device=self.reader.device)))

    @property
    def _pool(self) -> PseudoLabelPool:
        assert self.state.pool is not None  # made before any selection
        return self.state.pool
