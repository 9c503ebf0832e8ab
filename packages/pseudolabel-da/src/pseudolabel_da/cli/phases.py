"""Pretraining and adaptation as one training: what each epoch begins with, its batches, and what is measured after."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from robustvision_core.run.metrics import confusion_matrix
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor, nn

from pseudolabel_da.algorithm.objective import Labeled
from pseudolabel_da.algorithm.periods import PeriodContext, advance, stop_reason
from pseudolabel_da.algorithm.planning import Rows, plan_source
from pseudolabel_da.algorithm.prediction import probabilities
from pseudolabel_da.algorithm.reading import Reader, scale_images
from pseudolabel_da.algorithm.samples import TensorSamples
from pseudolabel_da.algorithm.seeds import make_generator
from pseudolabel_da.algorithm.training import Fetcher
from pseudolabel_da.cli.data import AdaptationData
from pseudolabel_da.cli.recipes import AUGMENTS, TRANSFER, TrainConfig
from pseudolabel_da.cli.step import Step, StepBatch
from pseudolabel_da.diagnosis.validators import TARGET_VALIDATORS, accuracy
from pseudolabel_da.rivals.schedules import lee_weight, reversal_strength
from pseudolabel_da.selection.calibration import fit_temperature
from pseudolabel_da.selection.thresholds import confidence_ceiling

VALIDATED = 5000  # target samples that a validator looks at; soft neighbourhoods cost their square
LEAST_RATE = 0.02  # of the learning rate, where it falls
PRETRAINING = -1000.0  # the score of epochs that are not to be kept, below that of any validator


class Phases:
    """The batches of a run, and what happens between its epochs.

    Everything is a pure function of (seed, epoch, state of the step), so that a run resumes within an epoch. Give
    `begin` to `fit` as `on_epoch`.

    Args:
        config: Of the run.
        data: Its data.
        step: What trains.
        optimizer: Of the step.
        runtime: Device and processes.
    """

    def __init__(
        self, config: TrainConfig, data: AdaptationData, step: Step, optimizer: torch.optim.Optimizer, runtime: Runtime
    ) -> None:
        self.config, self.data, self.step, self.optimizer, self.runtime = config, data, step, optimizer, runtime
        self.settings, self.selector = config.settings(), config.make_selector()
        if config.method in TRANSFER:  # a pass over the target is an epoch
            self.settings = replace(self.settings, passes="paired", order="paper", oversample="replacement")
        self.reader = make_reader(step.network, runtime)
        self.steps: list[Rows] = []
        self.generator = torch.Generator(runtime.device)

    @property
    def total(self) -> int:
        """Epochs of both phases."""
        return self.config.pretrain + self.config.adaptation

    def begin(self, epoch: int) -> None:
        """Enter an epoch: select where it is time, and plan its steps; when resumed within it, plan alone."""
        state, adapting = self.step.state, epoch >= self.config.pretrain
        if state.entered < epoch:
            if epoch == self.config.pretrain:
                self._begin_adaptation()
            pooled = adapting and self.config.method not in TRANSFER
            if pooled and not state.stopped and (epoch - self.config.pretrain) % self.config.period == 0:
                self._select(epoch - self.config.pretrain)
            state.entered = epoch
        self.steps = self._plan(epoch)
        smoothing = self.config.label_smoothing if adapting else self.config.pretrain_label_smoothing
        criterion = self.step.objective.criterion
        assert isinstance(criterion, nn.CrossEntropyLoss)  # make_step gave it
        criterion.label_smoothing = smoothing
        if self.steps:
            state.smoothing = smoothing

    def __len__(self) -> int:
        """Batches of the epoch that was begun."""
        return len(self.steps)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StepBatch]:
        """The batches of the epoch that was begun, from number `start` on; this process's part of each."""
        config, data = self.config, self.data
        fetcher = Fetcher(
            data.labelled,
            data.target,
            self.step.state.pool,
            self.reader.prepare,
            augment=AUGMENTS[config.target_augment],
            source_augment=AUGMENTS[config.source_augment],
            generator=self.generator,
        )
        for number in range(start, len(self.steps)):
            self.generator.manual_seed(derive_seed(config.seed, "augment", epoch, number))
            # every process augments the global batch, which is what makes their parts agree
            source, target = next(fetcher.batches([self.steps[number]]))
            now = epoch + number / len(self.steps)
            self._set_rate(now)
            done = (now - config.pretrain) / max(config.adaptation, 1)
            yield StepBatch(self._part(source), self._part(target), self._weight(done))

    def validate(self) -> dict[str, float]:
        """What an epoch's record holds besides the loss; `score` where an epoch is to be chosen by it."""
        state, select = self.step.state, self.config.select
        epoch, found = state.entered, {"pseudo_labels": float(state.pool.selected.sum())}
        adapted = epoch >= self.config.pretrain or not self.config.adaptation
        wanted = select != "last" and adapted
        if self.settings.batch_norm == "target" and (wanted or epoch + 1 == self.total):
            self._estimate_statistics(epoch + 1)
        if select != "last":
            found["score"] = self._score() if wanted else PRETRAINING
        return found

    def _begin_adaptation(self) -> None:
        """Look at the start, for the report alone, and start a new optimizer."""
        self.step.state.start = confusion_on(self.reader, self.data).tolist()
        if self.config.reset_optimizer:
            self.optimizer.state.clear()

    def _set_rate(self, now: float) -> None:
        """Set the learning rate at a time in epochs."""
        config = self.config
        if not config.anneal:
            return
        adapted = now - config.pretrain
        done = adapted % config.period / config.period if adapted >= 0 else now / config.pretrain
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * max(LEAST_RATE, (1 + math.cos(math.pi * done)) / 2)

    def _plan(self, epoch: int) -> list[Rows]:
        """The steps of an epoch, by the pool as it is."""
        config, data, state = self.config, self.data, self.step.state
        if epoch < config.pretrain:
            return self._supervised(epoch, "pretrain order")
        if state.stopped:
            return []
        epoch -= config.pretrain
        pool = state.pool
        rows = torch.arange(len(pool), device=pool.labels.device) if config.method in TRANSFER else pool.rows()
        if not rows.numel():
            if config.on_empty == "stop":
                state.stopped = "no sample has a pseudo-label"
            return self._supervised(epoch, "source epoch") if config.on_empty == "source_epoch" else []
        steps = self.settings.plan(rows, data.own, data.extra, epoch)
        if self.settings.passes != "separate":
            return [replay_less(step, config.replay_share) for step in steps]
        if self.settings.order == "paper":
            return steps
        # the published code trains on the source before it selects: that pass ends the epoch before, in which
        # nothing has happened since to the pool
        later = self.settings.plan(rows, data.own, data.extra, epoch + 1) if epoch + 1 < config.epochs else []
        return [step for step in steps if step.source is None] + [step for step in later if step.pseudo is None]

    def _supervised(self, epoch: int, name: str) -> list[Rows]:
        generator = make_generator(self.config.seed, name, epoch)
        order = torch.randperm(len(self.data.labelled), generator=generator)
        return plan_source(order.to(self.runtime.device), self.config.batch_size)

    def _weight(self, done: float) -> float:
        """Of the loss on the target, when a share `done` of the adaptation is behind."""
        config = self.config
        if config.method == "lee":
            return lee_weight(done, config.lee_start, config.lee_end, config.lee_final)
        if config.method == "dann":
            return reversal_strength(max(done, 0.0))
        return config.coral_weight if config.method == "coral" else 1.0

    def _part(self, samples: Labeled | None) -> Labeled | None:
        """This process's part, as large as every other's; all of the samples where that would be fewer than two."""
        world = self.runtime.world_size
        if samples is None or world == 1 or len(samples.labels) < 2 * world:  # one alone has no covariance
            return samples
        size = len(samples.labels) // world
        part = slice(self.runtime.rank * size, (self.runtime.rank + 1) * size)
        return Labeled(samples.inputs[part], samples.labels[part])

    def _select(self, epoch: int) -> None:
        """Label the pool and select (Algorithm 1, lines 5-13); every process comes to the same selection."""
        state, data, settings = self.step.state, self.data, self.settings
        self._agree_on_statistics()
        val = self.reader.outputs(data.val)  # before the statistics are the target's
        known = float(self.runtime.all_reduce_mean(accuracy(val.logits, val.labels).float()))
        temperature = torch.ones_like(val.logits[0, 0])
        if settings.calibrate:
            temperature = self.runtime.all_reduce_mean(fit_temperature(val.logits, val.labels).to(val.logits))
        if settings.batch_norm == "target":
            self._estimate_statistics(epoch)
            self._agree_on_statistics()
        smoothing = 0.0 if settings.calibrate else state.smoothing
        context = PeriodContext(
            epoch,
            known,
            confidence_ceiling(smoothing, state.pool.classes),
            history=tuple(state.periods),
            truth=data.truth,
        )
        probs = probabilities(self._pool_logits(), temperature)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            record = advance(state.pool, self.selector, probs, settings, context)
        if self.runtime.is_main:
            sys.stderr.writelines(f"pseudolabel-da: warning: {warning.message}\n" for warning in caught)
        state.periods.append(record)
        state.barren = 0 if record.selected or not record.candidates else state.barren + 1
        state.stopped = stop_reason(record, state.barren, settings)

    def _pool_logits(self) -> Tensor:
        """Logits (N, K) of the target samples; each process computes its part of them."""
        world, rank, inputs = self.runtime.world_size, self.runtime.rank, self.data.target.inputs
        if world == 1:
            return self.reader.outputs(self.data.target).logits
        ends = torch.linspace(0, len(inputs), world + 1).long().tolist()
        own = self.reader.outputs(TensorSamples(inputs[ends[rank] : ends[rank + 1]])).logits
        logits = torch.zeros(len(inputs), own.shape[1], dtype=own.dtype, device=own.device)
        logits[ends[rank] : ends[rank + 1]] = own
        return self.runtime.all_reduce_sum(logits)

    def _agree_on_statistics(self) -> None:
        """Give every process the mean of their running statistics, which each keeps of its own batches."""
        for buffer in self.step.network.buffers():
            if self.runtime.world_size > 1 and buffer.is_floating_point():
                buffer.copy_(self.runtime.all_reduce_mean(buffer))

    def _estimate_statistics(self, epoch: int) -> None:
        generator = make_generator(self.config.seed, "statistics", epoch)
        self.reader.estimate_statistics(self.data.target, self.settings.statistics_batches, generator)

    def _score(self) -> float:
        """The validator's score of the network as it is."""
        if self.settings.checkpoint == "source_accuracy":
            score = self.reader.accuracy(self.data.val)
        else:
            rows = torch.randperm(len(self.data.target), generator=make_generator(self.config.seed, "validator"))
            chosen = TensorSamples(self.data.target.inputs[rows[:VALIDATED].to(self.runtime.device)])
            probs = probabilities(self.reader.outputs(chosen).logits)
            score = float(TARGET_VALIDATORS[self.settings.checkpoint](probs))
        return float(self.runtime.all_reduce_mean(torch.tensor(score, device=self.runtime.device)))


def replay_less(rows: Rows, share: float) -> Rows:
    """The step with at most `share` source rows for every pseudo-labelled one, but no fewer than two."""
    if rows.source is None or rows.pseudo is None:
        return rows
    return Rows(rows.source[: max(round(share * rows.pseudo.numel()), 2)], rows.pseudo)


def make_reader(network: nn.Module, runtime: Runtime) -> Reader:
    """How samples reach the network."""
    return Reader(network, runtime.device, torch.float32, scale_images, autocast=runtime.autocast_dtype)


def confusion_on(reader: Reader, data: AdaptationData, domain: str = "target") -> Tensor:
    """Counts (K, K) of true and predicted classes over a domain's test set, on the CPU."""
    test = data.target_test if domain == "target" else data.source_test
    predicted = reader.outputs(TensorSamples(test.images)).logits.argmax(1).cpu()
    return confusion_matrix(predicted, test.labels.cpu(), test.num_classes)
