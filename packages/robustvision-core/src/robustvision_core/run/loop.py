"""The training loop: one for every package."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from robustvision_core.errors import CheckpointError, Interrupted, UserError
from robustvision_core.run.folder import Run
from robustvision_core.run.runtime import Runtime, to_device, unwrap

CHECK_EVERY = 50  # batches between looks at the loss: each look waits for the device


class Batches(Protocol):
    """What `fit` trains on: batches that are a pure function of (epoch, number)."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of one epoch from number `start` on."""
        ...


class NonFiniteLossError(UserError):
    """The loss became infinite or not a number."""


@dataclass
class Progress:
    """Where training stands; all of it is in the checkpoint.

    Attributes:
        epoch: Epochs completed; records number them from 1.
        batch: Batches completed of the epoch that runs.
        best: Best value of the monitored metric so far.
        best_epoch: The epoch that gave it, from 1.
        sums: Sums of the step's outputs over the batches of the epoch that runs.
    """

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Training:
    """What `fit` works on; build it through `fit`."""

    step: nn.Module
    optimizer: torch.optim.Optimizer
    runtime: Runtime
    run: Run | None
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    progress: Progress

    def save(self) -> None:
        """Write the whole state to the run's checkpoint; every process must call it."""
        if self.run is None:
            return
        rng, sums = self.runtime.gather(self.runtime.rng_state()), self.runtime.gather(self.progress.sums)
        state = {
            "step": unwrap(self.step).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "progress": vars(self.progress) | {"sums": sums},
            "rng": rng,
        }
        self.run.save(self.run.checkpoint_path, state)

    def load(self) -> None:
        """Restore the state of the run's checkpoint.

        Raises:
            CheckpointError: It is damaged, or of another program, network or number of processes.
        """
        if self.run is None:
            return
        if not self.run.checkpoint_path.exists():  # stopped before the first one: start again from the same seed
            self.run.keep_metrics(0)
            return
        state = self.run.load(self.run.checkpoint_path)
        try:
            self._restore(state)
        except CheckpointError:
            raise
        except Exception as error:  # a state that is not of this program can fail anywhere
            cause = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(
                f"{self.run.checkpoint_path} is not a state of this run: {type(error).__name__}: {cause[:200]}; "
                "start anew with another --out"
            ) from error
        self.run.keep_metrics(self.progress.epoch)

    def _restore(self, state: dict[str, Any]) -> None:
        unwrap(self.step).load_state_dict(state["step"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        progress = dict(state["progress"])
        sums = progress.pop("sums")
        sums = [sums] * len(state["rng"]) if isinstance(sums, dict) else sums  # before, all had those of rank 0
        self.progress = Progress(**progress)
        self._check_progress()
        if len(state["rng"]) == self.runtime.world_size:
            self.progress.sums = to_device(sums[self.runtime.rank], self.runtime.device)
            self.runtime.set_rng_state(state["rng"][self.runtime.rank])
        else:
            self._restore_of_others(state["rng"])
        if self.run is not None and self.run.grown:
            self._follow_the_new_total()

    def _check_progress(self) -> None:
        now = self.progress
        counts = (now.epoch, now.batch, now.best_epoch)
        if not all(isinstance(count, int) and count >= 0 for count in counts) or not (
            now.best is None or isinstance(now.best, int | float)
        ):
            raise ValueError(f"its progress is {now}")

    def _restore_of_others(self, states: list[dict[str, Tensor]]) -> None:
        """Go on with another number of processes than that which wrote the state.

        Between epochs that is sound: the batches of all processes together are the same, the named generators too, and
        torch's global one, which differs by rank, is seeded anew. Within an epoch the parts of the batches that each
        process has counted differ.
        """
        if self.progress.batch:
            raise CheckpointError(
                f"{self.run and self.run.checkpoint_path} was written within an epoch by {len(states)} processes, this "
                f"run has {self.runtime.world_size}: resume with --devices {len(states)}"
            )
        self.runtime.set_rng_state(states[0])
        self.runtime.reseed(f"epoch {self.progress.epoch} of another number of processes")

    def _follow_the_new_total(self) -> None:
        """Set the learning rate to where a schedule that depends on the number of epochs is under the new one."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.LambdaLR):
            schedule = zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
            for group, rate, factor in schedule:
                group["lr"] = rate * factor(self.scheduler.last_epoch)


def fit(
    step: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    *,
    epochs: int,
    runtime: Runtime,
    run: Run | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    monitor: str | None = None,
    higher_is_better: bool = True,
    on_epoch: Callable[[int], None] | None = None,
    clip_norm: float | None = None,
    checkpoint_minutes: float = 10,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train `step` and return one record an epoch.

    Args:
        step: What `Runtime.wrap` gave. `forward(batch)` returns the loss, or a dict of scalars with `loss`.
        optimizer: Over the step's parameters.
        batches: The training data.
        epochs: How many epochs in all, those of a resumed run included. A resumed run may have more than it began with:
            it goes on exactly, and schedules that depend on the number follow the new one from there on.
        runtime: Device, precision and processes.
        run: Where records and checkpoints go. If it resumes, training goes on exactly where it stopped, within an
            epoch too.
        scheduler: Stepped after every epoch.
        validate: Called after every epoch, in evaluation mode without gradients; its values join the record.
        monitor: The validation value that chooses `best.pt`.
        higher_is_better: Whether `monitor` is to be as high as possible.
        on_epoch: Called with the number of each epoch, from 0, before it starts or goes on.
        clip_norm: Largest norm of the gradient.
        checkpoint_minutes: Longest time between checkpoints within an epoch; one is written after every epoch too.
        progress: Show a bar where the error stream is a terminal.

    Raises:
        NonFiniteLossError: The loss is no longer finite. The checkpoint of the last epoch stays.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    training = Training(step, optimizer, runtime, run, scheduler, Progress())
    if run is not None:
        run.begin()
        run.check_space(sum(value.nbytes for value in step.state_dict().values() if isinstance(value, Tensor)))
        if run.resume:
            training.load()
            _say_grown(run, training)
    records = run.metrics() if run is not None else []
    with _StopSignal() as stopped:
        while training.progress.epoch < epochs:
            if on_epoch:
                on_epoch(training.progress.epoch)
            started = time.perf_counter()
            _train_epoch(training, batches, stopped, clip_norm, checkpoint_minutes * 60, progress)
            record = _finish_epoch(training, len(batches), validate, monitor, higher_is_better)
            record["seconds"] = round(time.perf_counter() - started, 3)
            records.append(record)
            if run is not None:
                run.log(record)
            training.save()
            if runtime.any_rank(stopped()):
                raise stopped.error(run)
    return records


def _say_grown(run: Run, training: Training) -> None:
    if not run.grown or not run.writes:
        return
    raised = ", ".join(f"{name} {before:g} to {now:g}" for name, (before, now) in run.grown.items())
    rates = ", ".join(f"{group['lr']:g}" for group in training.optimizer.param_groups)
    sys.stderr.write(
        f"{run.folder} is trained longer ({raised}): schedules over all epochs follow the new number from epoch "
        f"{training.progress.epoch + 1} on, which begins with the learning rate {rates}\n"
    )


def _train_epoch(
    training: Training, batches: Batches, stopped: _StopSignal, clip_norm: float | None, save_s: float, bar: bool
) -> None:
    state, runtime = training.progress, training.runtime
    show = bar and runtime.is_main and sys.stderr.isatty()
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    training.step.train()
    saved = time.monotonic()
    with tqdm(total=len(batches), initial=state.batch, desc=f"epoch {state.epoch + 1}", disable=not show) as shown:
        for batch in batches.epoch(state.epoch, state.batch):
            with runtime.autocast():
                out = training.step(to_device(batch, runtime.device))
            values = out if isinstance(out, dict) else {"loss": out}
            training.optimizer.zero_grad(set_to_none=True)
            values["loss"].backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_norm)
            training.optimizer.step()
            for name, value in values.items():
                value = value.detach().float()
                state.sums[name] = state.sums[name] + value if name in state.sums else value
            state.batch += 1
            shown.update()
            if state.batch % CHECK_EVERY == 0:
                mean = _check_finite(state)
                shown.set_postfix(loss=f"{mean:.4f}")
                # one clock decides for all: every process must take part in a checkpoint
                if runtime.any_rank(runtime.is_main and time.monotonic() - saved > save_s):
                    training.save()
                    saved = time.monotonic()
            if _stop_now(stopped, runtime, state.batch) and state.batch < len(batches):
                _check_finite(state)
                training.save()
                raise stopped.error(training.run)
    _check_finite(state)


def _finish_epoch(
    training: Training,
    count: int,
    validate: Callable[[], Mapping[str, float]] | None,
    monitor: str | None,
    higher_is_better: bool,
) -> dict[str, Any]:
    state = training.progress
    record: dict[str, Any] = {"epoch": state.epoch + 1, "lr": training.optimizer.param_groups[0]["lr"]}
    record |= {name: float(training.runtime.all_reduce_mean(value)) / count for name, value in state.sums.items()}
    if training.scheduler:
        training.scheduler.step()
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
    if validate:
        training.step.eval()
        with torch.no_grad():
            record |= validate()
    if monitor is not None:
        value = record[monitor]
        better = state.best is None or (value > state.best if higher_is_better else value < state.best)
        if better and math.isfinite(value):
            state.best, state.best_epoch = value, state.epoch
            if training.run is not None:
                training.run.save(
                    training.run.best_path, {"step": unwrap(training.step).state_dict(), "record": record}
                )
    return record


def _check_finite(state: Progress) -> float:
    """The mean loss of the epoch so far; waits for the device."""
    mean = float(state.sums["loss"]) / max(state.batch, 1) if state.sums else 0.0
    if not math.isfinite(mean):
        raise NonFiniteLossError(
            f"the loss became {mean} in epoch {state.epoch + 1} by batch {state.batch}: "
            "lower the learning rate, or clip the gradient; the last epoch's checkpoint is kept"
        )
    return mean


def _stop_now(stopped: _StopSignal, runtime: Runtime, batch: int) -> bool:
    if runtime.world_size == 1:
        return stopped()
    # the processes must agree on the batch they stop at, else one waits for gradients for ever
    return batch % CHECK_EVERY == 0 and runtime.any_rank(stopped())


class _StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a flag while it is entered; a second Ctrl-C acts at once."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return bool(self.caught)

    def __enter__(self) -> _StopSignal:
        with contextlib.suppress(ValueError):  # not the main thread: signals are the caller's
            self.before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def error(self, run: Run | None) -> Interrupted:
        """What to leave the training with."""
        return Interrupted(self.caught[0] if self.caught else signal.SIGINT, run and run.folder)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught.append(number)
