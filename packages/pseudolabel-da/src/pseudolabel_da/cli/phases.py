"""The library's driver as the core's training loop wants it: batches, what an epoch begins with, what it ends with."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import torch
from robustvision_core.run.runtime import Runtime
from torch import nn

from pseudolabel_da.algorithm.driver import Driver
from pseudolabel_da.algorithm.fetching import StepBatch
from pseudolabel_da.algorithm.planning import Rows
from pseudolabel_da.algorithm.steps import selector_of
from pseudolabel_da.cli.data import AdaptationData
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import Step
from pseudolabel_da.cli.testing import confusion_on, make_reader
from pseudolabel_da.diagnosis.alerts import PseudoLabelWarning
from pseudolabel_da.diagnosis.error import Opinion
from pseudolabel_da.reading.augments import AUGMENTS, MILD
from pseudolabel_da.reading.labeled import Labeled

PRETRAINING = -1000.0  # the score of epochs that are not to be kept, below that of any validator


class Phases:
    """The batches of a run, and what happens between its epochs: `Driver`, resumed within an epoch.

    Give `begin` to `fit` as `on_epoch`.

    Args:
        config: Of the run.
        data: Its data.
        step: What trains.
        optimizer: Of the step.
        runtime: Device and processes.
        second: What a second network says of the target, or None without one.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: AdaptationData,
        step: Step,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        second: Opinion | None = None,
    ) -> None:
        self.config, self.data, self.step, self.runtime = config, data, step, runtime
        self.reader = make_reader(step.network, runtime)
        settings = config.settings()
        self.driver = Driver(
            settings,
            selector_of(settings),
            self.reader,
            data.domains,
            step.state,
            optimizer,
            pretrain=config.pretrain,
            epochs=config.adaptation,
            augment=AUGMENTS[settings.augment],
            source_augment=AUGMENTS[settings.source_augment],
            check=None if settings.check == "means" else MILD,
            processes=runtime,
            second=second,
        )
        self.steps: list[Rows] = []

    @property
    def total(self) -> int:
        """Epochs of both phases."""
        return self.driver.total

    def begin(self, epoch: int) -> None:
        """Enter an epoch and plan its steps; when resumed within it, plan alone."""
        state = self.step.state
        if state.entered < epoch:
            if epoch == self.config.pretrain and self.data.target_test is not None:
                state.start = confusion_on(self.reader, self.data.target_test).tolist()  # for the report alone
            torch.manual_seed(self.driver.generator_seed(epoch))
            self._enter(epoch)
            state.entered = epoch
        self.steps = self.driver.steps(epoch)
        criterion = self.step.objective.criterion
        assert isinstance(criterion, nn.CrossEntropyLoss)  # make_step gave it
        criterion.label_smoothing = self.driver.plan(epoch).smoothing

    def __len__(self) -> int:
        """Batches of the epoch that was begun."""
        return len(self.steps)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StepBatch]:
        """The batches of the epoch that was begun, from number `start` on; this process's part of each."""
        # every process augments the global batch, which is what makes their parts agree
        for source, target, weight in self.driver.batches(epoch, self.steps, start):
            yield StepBatch(self._part(source), self._part(target), weight)

    def validate(self) -> dict[str, float]:
        """What an epoch's record holds besides the loss; `score` where an epoch is to be chosen by it."""
        state = self.step.state
        found, score = {"pseudo_labels": float(state.pool.selected.sum())}, self.driver.finish(state.entered)
        if self.config.checkpoint != "last":
            found["score"] = PRETRAINING if score is None else score
        return found

    def _enter(self, epoch: int) -> None:
        """Enter, with the warnings as lines of the main process."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PseudoLabelWarning)
            self.driver.enter(epoch)
        if self.runtime.is_main:
            sys.stderr.writelines(f"pseudolabel-da: warning: {warning.message}\n" for warning in caught)

    def _part(self, samples: Labeled | None) -> Labeled | None:
        """This process's part, as large as every other's; all of the samples where that would be fewer than two."""
        world = self.runtime.world_size
        if samples is None or world == 1 or len(samples.labels) < 2 * world:  # one alone has no covariance
            return samples
        size = len(samples.labels) // world
        part = slice(self.runtime.rank * size, (self.runtime.rank + 1) * size)
        return Labeled(samples.inputs[part], samples.labels[part])
