"""`flowaug train`: a classifier and the augmentations of every image, together."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from robustvision_core.data import Batch, DeviceBatches, ImageSet
from robustvision_core.predict import Preprocessing, describe
from robustvision_core.run.folder import Run
from robustvision_core.run.loop import fit
from robustvision_core.run.runtime import Runtime, channels_last, derive_seed
from torch import Tensor, nn

from flowaug.baselines import AugerinoAugmenter, PSTNAugmenter
from flowaug.classifier import AugmentedClassifier
from flowaug.cli import plots
from flowaug.cli.data import Sets, load
from flowaug.cli.measures import accuracy, measure, ordered_batches
from flowaug.cli.models import make_controller, make_model, start_model, zero_of
from flowaug.cli.optimizers import forget, make_optimizer, make_scheduler
from flowaug.cli.recipes import TrainConfig
from flowaug.objective import AugLoss


class Step(nn.Module):
    """One forward pass and its loss.

    Transforms come from torch's global generator, which differs by process and travels in checkpoints.

    Args:
        model: Classifier and augmenter.
        config: Which loss.
        mean: Mean of a tensor over the processes; their controllers then stay the same.
    """

    augmented: Tensor

    def __init__(
        self, model: AugmentedClassifier, config: TrainConfig, mean: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model, self.controller = model, make_controller(config)
        self.alpha, self.penalty = config.objective.alpha, config.objective.penalty
        self.burn_in = config.objective.burn_in if config.augmenter != "none" else config.epochs
        self.freeze_after, self.mean = config.objective.freeze_after, mean
        self.learns, self.epoch = config.learns, 0
        self.register_buffer("augmented", torch.zeros((), dtype=torch.long))

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch runs, from 0."""
        self.epoch = epoch
        self.model.frozen = bool(self.freeze_after) and epoch >= self.freeze_after

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, cross-entropy, entropy of the augmenter, and alpha where it moves."""
        if self.epoch < self.burn_in:
            loss = self.model.plain_loss(batch.images, batch.labels)
            return {"loss": loss + zero_of(self.model.augmenter) if self.learns else loss}
        self.augmented.add_(1)
        parts = self._parts(batch.images, batch.labels)
        values = {"loss": parts.total, "ce": parts.ce}
        if self.model.frozen:
            values["loss"] = values["loss"] + zero_of(self.model.classifier)
        if not self.learns:
            return values
        values["entropy"] = parts.entropy
        if self.controller is not None:
            entropy = parts.entropy.detach()
            values["alpha"] = self.controller.update(entropy if self.mean is None else self.mean(entropy))
        return values

    def _parts(self, images: Tensor, labels: Tensor) -> AugLoss:
        """The loss of the augmenter at hand; that of Augerino and PSTN is their own."""
        augmenter = self.model.augmenter
        if isinstance(augmenter, AugerinoAugmenter):
            parts = self.model.loss(images, labels, 0.0)
            return parts._replace(total=parts.total + self.penalty * augmenter.width_loss())
        if isinstance(augmenter, PSTNAugmenter):
            parts = self.model.loss(images, labels, 0.0)
            return parts._replace(total=parts.total + self.penalty * augmenter.kl_to_prior(images).mean())
        alpha = self.alpha if self.controller is None else self.controller.alpha.clone()
        return self.model.loss(images, labels, alpha)


def train(config: TrainConfig) -> pathlib.Path:
    """Train as `config` says, test once, and return the run folder."""
    config = config.settled().as_begun()
    with config.session(f"flowaug-{config.data.partition(':')[0]}-{config.augmenter}") as (runtime, run):
        sets = load(config)
        model, said = (make_model(config, sets.train), "") if config.resume else start_model(config, sets.train)
        if said and runtime.is_main:
            sys.stdout.write(f"{said}\n")
        step = Step(model, config, runtime.all_reduce_mean)
        run.about = about(sets.train)
        records = fit_on(config, sets, runtime, run, step)
        if runtime.is_main:
            finish(config, sets, runtime, run, step, records)
        return run.folder


def fit_on(config: TrainConfig, sets: Sets, runtime: Runtime, run: Run | None, step: Step) -> list[dict[str, Any]]:
    """Train `step` on the training set; records of the epochs."""
    batches = make_batches(config, sets.train, runtime)
    wrapped = runtime.wrap(step)
    if runtime.device.type == "cuda":
        channels_last(step.model.classifier)
    optimizer = make_optimizer(config, step.model)
    held = None if sets.val is None else ordered_batches(sets.val, runtime)

    def on_epoch(epoch: int) -> None:
        step.set_epoch(epoch)
        if epoch == step.burn_in and not int(step.augmented):
            forget(optimizer, step.model.augmenter.parameters())

    def validate() -> dict[str, float]:
        assert held is not None
        return {"val_accuracy": accuracy(config, step.model, held, runtime)}

    return fit(
        wrapped,
        optimizer,
        batches,
        epochs=config.epochs,
        runtime=runtime,
        run=run,
        scheduler=make_scheduler(config, optimizer),
        validate=None if held is None else validate,
        monitor=None if held is None else "val_accuracy",
        on_epoch=on_epoch,
        progress=config.progress,
    )


def about(data: ImageSet) -> dict[str, Any]:
    """What a checkpoint says of its images and classes: they come in [0, 1], and the networks standardise them."""
    channels = data.shape[0]
    if channels not in (1, 3):  # no picture on disk is read as such
        return {}
    return describe("flowaug", Preprocessing.of(data.shape, torch.zeros(channels), torch.ones(channels)), data.classes)


def make_batches(config: TrainConfig, data: ImageSet, runtime: Runtime) -> DeviceBatches:
    """Shuffled batches of images in [0, 1]."""
    return DeviceBatches(
        data,
        config.batch_size,
        shuffle=True,
        seed=derive_seed(config.seed, "order"),
        rank=runtime.rank,
        world_size=runtime.world_size,
        mean=0.0,
        std=1.0,
        device=runtime.device,
    )


def finish(
    config: TrainConfig, sets: Sets, runtime: Runtime, run: Run, step: Step, records: list[dict[str, Any]]
) -> None:
    """Test the last and the selected epoch, and write summary and pictures."""
    summary: dict[str, Any] = {"data": config.data, "augmenter": config.augmenter, "seed": config.seed}
    summary["final"] = measure(config, step.model, sets.test, runtime)
    last = {name: value.clone() for name, value in step.model.state_dict().items()}
    if epoch := run.load_best(step.model, "model"):
        summary["selected"] = measure(config, step.model, sets.test, runtime) | {"epoch": epoch}
        step.model.load_state_dict(last)
    run.write_summary(summary)
    plots.training(records, run.plot_path("training"))
    plots.draw_learned(config, step.model, sets.test, runtime, run.plot_path)
    final = 100 * summary["final"]["accuracy"]
    sys.stdout.write(f"test accuracy {final:.2f} % (last epoch); run folder {run.folder}\n")
