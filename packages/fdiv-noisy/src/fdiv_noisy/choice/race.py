"""Candidates trained side by side on a part of the noisy samples, and their guesses for the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fdiv_noisy.choice.candidates import Make
from fdiv_noisy.estimation.cross_fit import MakeModel, Samples, pooled, predict, small_mlp
from fdiv_noisy.schedules import WarmUp

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]

ADAM: MakeOptimizer = functools.partial(torch.optim.Adam, lr=1e-3)
HELD_OUT = 0.25
EPOCHS = 20  # where nobody says how long the training will be
MOST_STEPS = 3000
ENOUGH = 6000  # samples that a race should judge by


@dataclass(frozen=True)
class Plan:
    """How the training will be, which the race imitates.

    Attributes:
        steps: Steps of the whole training; None for 20 epochs. The race takes 3,000 at most.
        batch_size: Samples a step.
        make_optimizer: From parameters to their optimizer; Adam at 1e-3 by default.
        make_schedule: From that and the number of steps to what sets its learning rate at each step; none by default.
    """

    steps: int | None = None
    batch_size: int = 128
    make_optimizer: MakeOptimizer | None = None
    make_schedule: MakeSchedule | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"steps and batch_size must be >= 1, got {self.steps} and {self.batch_size}")

    def race_steps(self, n: int) -> int:
        """Steps of each candidate, for `n` samples."""
        return min(self.steps or EPOCHS * self.an_epoch(n), MOST_STEPS)

    def seen(self, n: int) -> int:
        """Samples that the whole training sees, repeats included, for `n` samples."""
        return (self.steps or EPOCHS * self.an_epoch(n)) * self.batch_size

    def an_epoch(self, n: int) -> int:
        """Steps of an epoch of `n` samples."""
        return -(-n // self.batch_size)


def warmup_steps(steps: int, an_epoch: int) -> int:
    """Steps of cross-entropy before another loss: an epoch, but at most a fifth of all."""
    return max(1, min(an_epoch, steps // 5))


@dataclass(frozen=True)
class Race:
    """What the candidates said of labels that they had not seen.

    Attributes:
        labels: (M,) int64 noisy labels.
        guesses: (M,) int64 guesses of each candidate for the true classes.
    """

    labels: Tensor
    guesses: Mapping[str, Tensor]


def run_race(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    losses: Mapping[str, Make],
    *,
    plan: Plan,
    make_model: MakeModel | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_training: Callable[[], object] | None = None,
    settled: Callable[[Race], bool] | None = None,
) -> Race:
    """Train a network with every loss, from the same start and on the same batches, on three quarters of the samples.

    Sets below 24,000 samples are split several times, so that up to about 6,000 guesses are made. The global random
    state stays.

    Args:
        inputs: (N, ...), as `fdiv_noisy.estimation.cross_fit_probabilities` takes them.
        labels: (N,) int64 noisy labels.
        num_classes: K.
        losses: Makers of the candidates by name.
        plan: How they are trained.
        make_model: Makes an untrained network; by default a small MLP on averaged pixels.
        device: Where to train; by default where the inputs are.
        seed: Of splits, batches and networks.
        on_training: Called after each training.
        settled: Asked after each split whether its guesses are enough.
    """
    if make_model is None:
        inputs = pooled(inputs)
        make_model = functools.partial(small_mlp, inputs.shape[1], num_classes)
    samples = Samples(inputs, labels, inputs.device if device is None else torch.device(device))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    parts = order.tensor_split(round(1 / HELD_OUT))
    splits = parts[: max(1, min(len(parts), round(ENOUGH / len(parts[0]))))]
    guesses: dict[str, list[Tensor]] = {name: [] for name in losses}
    with torch.random.fork_rng([samples.device] if samples.device.type == "cuda" else []):
        for number, held in enumerate(splits):
            rest = torch.cat([part for part in parts if part is not held])
            for name, make in losses.items():
                torch.manual_seed(seed + number)
                model = make_model().to(samples.device)
                _train(model, make().to(samples.device), samples, rest, plan, seed + number)
                guesses[name].append(predict(model, samples, held).argmax(1).cpu())
                if on_training:
                    on_training()
            if settled and settled(_judged(labels, splits, guesses)):
                break
    return _judged(labels, splits, guesses)


def _judged(labels: Tensor, splits: Sequence[Tensor], guesses: Mapping[str, list[Tensor]]) -> Race:
    """The guesses so far, for the first of the splits."""
    done = len(next(iter(guesses.values())))
    judged = labels[torch.cat(list(splits[:done])).to(labels.device)].cpu()
    return Race(judged, {name: torch.cat(found) for name, found in guesses.items()})


def _train(model: nn.Module, loss: nn.Module, samples: Samples, rows: Tensor, plan: Plan, seed: int) -> None:
    steps = plan.race_steps(len(samples.labels))
    first = nn.CrossEntropyLoss()
    criterion = WarmUp(first, loss, steps=warmup_steps(steps, plan.an_epoch(len(rows))))
    optimizer = (plan.make_optimizer or ADAM)(model.parameters())
    schedule = plan.make_schedule(optimizer, steps) if plan.make_schedule else None
    generator = torch.Generator().manual_seed(seed)
    size = min(plan.batch_size, len(rows))
    model.train()
    done = 0
    while done < steps:
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(size):
            if len(batch) < size or done == steps:
                continue  # a last batch of a few samples upsets batch statistics
            inputs, labels = samples.batch(batch)
            optimizer.zero_grad(set_to_none=True)
            criterion(model(inputs), labels).backward()
            optimizer.step()
            if schedule:
                schedule.step()
            done += 1
