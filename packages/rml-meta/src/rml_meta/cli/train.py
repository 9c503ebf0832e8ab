"""`rml-meta train`: a few-shot method from base classes."""

from __future__ import annotations

import math
import pathlib
import sys
from typing import Any

import torch
from robustvision_core.data import EpisodeSampler
from robustvision_core.predict import Preprocessing, describe
from robustvision_core.run.folder import Run
from robustvision_core.run.loop import fit
from robustvision_core.run.runtime import Runtime, channels_last
from torch import Tensor, nn

from rml_meta.cli import class_split, learners, plots
from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.data import held_out_tasks, training_batches
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.scoring import accuracy_on, summarise
from rml_meta.methods import FewShotMethod


class Step(nn.Module):
    """The loss of one batch.

    Args:
        method: Batches to losses.
    """

    def __init__(self, method: FewShotMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Any) -> Tensor:
        """The loss (0-dim)."""
        return self.method.training_loss(batch)


def train(config: TrainConfig) -> pathlib.Path:
    """Train as `config` says, test once on novel classes, and return the run folder."""
    with config.session(f"rml-meta-{config.method}") as (runtime, run):
        split = class_split.load(config)
        prepared = Preprocessing.of(split.base.shape, *learners.statistics(config, split.base))
        run.about = describe("rml-meta", prepared, split.base.classes)
        step = make_step(config, split)
        tasks = novel_tasks(config, split, runtime)  # before hours of training, should the test not be possible
        records = fit_on(config, split, runtime, run, step)
        if runtime.is_main:
            finish(config, tasks, runtime, run, step, records)
        return run.folder


def make_step(config: TrainConfig, split: ClassSplit) -> Step:
    """The training step with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        step = Step(learners.build(config, split.channels, split.base.num_classes))
    channels_last(step)
    return step


def fit_on(config: TrainConfig, split: ClassSplit, runtime: Runtime, run: Run | None, step: Step) -> list[dict]:
    """Train `step` on the base classes; records of the epochs."""
    batches = training_batches(config, split.base, runtime)
    held = held_out_tasks(config, split, "val", runtime, correlations=config.environments.correlations)
    wrapped = runtime.wrap(step)
    optimizer = make_optimizer(config, step)
    set_epoch = getattr(step.method, "set_epoch", None)

    def validate() -> dict[str, float]:
        return {"val_accuracy": accuracy_on(step.method, held, runtime).mean}

    return fit(
        wrapped,
        optimizer,
        batches,
        epochs=config.epochs,
        runtime=runtime,
        run=run,
        scheduler=make_scheduler(config, optimizer),
        validate=validate,
        monitor="val_accuracy",
        on_epoch=set_epoch,
        clip_norm=config.clip_norm or None,
        progress=config.progress,
    )


def make_optimizer(config: TrainConfig, step: Step) -> torch.optim.Optimizer:
    """The optimizer of `config`; for reptile plain SGD, whose rate is the published epsilon."""
    reptile = config.method == "reptile"
    lr = config.lr if config.lr is not None else 1.0 if reptile else 1e-3
    kind = ("sgd" if reptile else "adam") if config.optimizer == "auto" else config.optimizer
    parameters = [p for p in step.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr) if kind == "adam" else torch.optim.SGD(parameters, lr)


def make_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate over the epochs."""
    kind = config.schedule
    if kind == "auto":
        kind = "linear" if config.method == "reptile" else "constant"

    def factor(epoch: int) -> float:
        done = epoch / config.epochs
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[kind]

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def novel_tasks(config: TrainConfig, split: ClassSplit, runtime: Runtime) -> dict[str, EpisodeSampler]:
    """The test tasks by name: `novel`, and with colours also `novel_as_trained`, correlated as in training."""
    looks = {"novel": config.environments.test_correlations}
    if config.environments.test.startswith("colour"):
        looks["novel_as_trained"] = config.environments.correlations
    return {name: held_out_tasks(config, split, "novel", runtime, correlations=p) for name, p in looks.items()}


def test_novel(method: FewShotMethod, tasks: dict[str, EpisodeSampler], runtime: Runtime) -> dict[str, Any]:
    """Summary of the accuracy on each of the `novel_tasks`."""
    return {name: summarise(accuracy_on(method, sampler, runtime)) for name, sampler in tasks.items()}


def finish(
    config: TrainConfig,
    tasks: dict[str, EpisodeSampler],
    runtime: Runtime,
    run: Run,
    step: Step,
    records: list[dict],
) -> None:
    """Test the epoch that validation chose, and write summary and picture."""
    epoch = run.load_best(step.method, "method")
    found = test_novel(step.method, tasks, runtime)
    summary: dict[str, Any] = {"method": config.method, "data": config.data, "target": config.target or config.data}
    run.write_summary(summary | {"seed": config.seed, "epoch": epoch} | found)
    plots.training(records, run.plot_path("training"))
    titles = {"novel": "", "novel_as_trained": ", colours as in training"}
    lines = [f"novel classes{titles[name]}: {value['text']}" for name, value in found.items()]
    sys.stdout.write("\n".join([*lines, f"run folder {run.folder}"]) + "\n")
