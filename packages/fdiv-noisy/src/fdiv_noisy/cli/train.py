"""`fdiv-noisy train`: a classifier from noisy labels."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import torch
from robustvision_core.data import Batch
from robustvision_core.predict import Preprocessing, describe
from robustvision_core.run.folder import Run
from robustvision_core.run.loop import fit
from robustvision_core.run.metrics import accuracy, predict
from robustvision_core.run.runtime import Runtime, channels_last
from torch import Tensor, nn

from fdiv_noisy.cli import criteria, plots
from fdiv_noisy.cli.batches import PeerBatch, make_batches
from fdiv_noisy.cli.classifier import (
    Classifier,
    confusion_on_test,
    image_shape,
    make_classifier,
    ordered_batches,
    summarise,
)
from fdiv_noisy.cli.data import NoisySet, load
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.losses.f_divergence import FDivergenceLoss
from fdiv_noisy.schedules import WarmUp


class Step(nn.Module):
    """One forward pass and its loss.

    Args:
        network: Images to logits.
        criterion: Logits and labels to the loss.
    """

    def __init__(self, network: nn.Module, criterion: WarmUp) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion

    def forward(self, batch: Batch | PeerBatch) -> Tensor:
        """The loss."""
        if isinstance(batch, Batch):
            return self.criterion(self.network(batch.images), batch.labels)
        own, peer_images, peer_labels = batch
        if self.criterion.warming:
            return self.criterion(self.network(own.images), own.labels)
        peers = {"peer_logits": self.network(peer_images), "peer_targets": peer_labels}
        return self.criterion(self.network(own.images), own.labels, **peers)


def train(config: TrainConfig) -> pathlib.Path:
    """Train as `config` says, test once on clean labels, and return the run folder.

    Raises:
        UserError: Something that `config` asks for cannot be had; the message says what.
    """
    criteria.check_warmup(config)
    if config.epochs == 1 and config.loss in ("auto", "pair-conditional"):
        sys.stdout.write(f"one epoch leaves none for cross-entropy before {config.loss}: it starts from scratch\n")
    with config.session(f"fdiv-noisy-{config.loss}") as (runtime, run):
        noisy = load(config)
        criterion, report = criteria.build(config, noisy, runtime)
        classifier = make_classifier(config, noisy.train)
        if runtime.is_main:
            sys.stdout.writelines(f"{text}\n" for text in (report, classifier.said) if text)
        shape = image_shape(config, noisy.train)
        prepared = Preprocessing.of((*shape, shape[1]), classifier.mean, classifier.std)
        run.about = describe("fdiv-noisy", prepared, noisy.train.classes)
        step = Step(classifier.network, criterion)
        records = fit_on(config, noisy, runtime, run, step, classifier)
        if runtime.is_main:
            finish(config, noisy, runtime, run, classifier, records, report)
        return run.folder


def fit_on(
    config: TrainConfig, noisy: NoisySet, runtime: Runtime, run: Run | None, step: Step, classifier: Classifier
) -> list[dict]:
    """Train `step` on the noisy set; records of the epochs."""
    peers = takes_peers(step.criterion)
    batches = make_batches(config, noisy.train, runtime, peers=peers, mean=classifier.mean, std=classifier.std)
    wrapped = runtime.wrap(step)
    if runtime.device.type == "cuda":
        channels_last(step.network)
    optimizer = criteria.make_optimizer(config.optimizer, step.parameters())
    held = None if noisy.val is None else ordered_batches(config, noisy.val, classifier, runtime)

    def validate() -> dict[str, float]:
        assert held is not None
        assert noisy.val is not None
        labels = noisy.val.labels.to(runtime.device)
        logits = predict(step.network, held.epoch(0), runtime)
        share = float((logits.argmax(1) == labels).float().mean())
        return {"val_score": selection_score(step.criterion.then, logits, labels), "val_noisy_accuracy": share}

    return fit(
        wrapped,
        optimizer,
        batches,
        epochs=config.epochs,
        runtime=runtime,
        run=run,
        scheduler=make_scheduler(config, optimizer),
        validate=None if held is None else validate,
        monitor=None if held is None else "val_score",
        on_epoch=step.criterion.set_epoch,
        progress=config.progress,
    )


def selection_score(criterion: nn.Module, logits: Tensor, labels: Tensor) -> float:
    """What the best epoch is chosen by, on noisy labels: the divergence, or minus the loss where there is none."""
    if isinstance(criterion, FDivergenceLoss):
        return float(criterion.divergence(logits, labels))
    return -float(criterion(logits, labels))


def takes_peers(criterion: WarmUp) -> bool:
    """Whether the loss after the warm-up wants the further batches of algorithm 1."""
    return isinstance(criterion.then, FDivergenceLoss) and criterion.then.product == "external"


def make_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate of each epoch."""
    return criteria.make_schedule(config.optimizer, optimizer, config.epochs)


def finish(
    config: TrainConfig,
    noisy: NoisySet,
    runtime: Runtime,
    run: Run,
    classifier: Classifier,
    records: list[dict],
    report: Any,
) -> None:
    """Test the last and the selected epoch on clean labels, and write summary and pictures."""
    classes = noisy.test.classes
    last = confusion_on_test(config, classifier, noisy, runtime)
    summary: dict[str, Any] = {
        "loss": config.loss,
        "noise": config.noise,
        "wrong_labels": noisy.wrong_labels,
        "seed": config.seed,
        "final": summarise(last, classes),
    }
    if report is not None:
        summary["found"] = str(report)
    if (epoch := run.load_best(classifier.network)) is not None:
        selected = confusion_on_test(config, classifier, noisy, runtime)
        summary["selected"] = summarise(selected, classes) | {"epoch": epoch}
    run.write_summary(summary)
    plots.training(records, run.plot_path("training"))
    plots.confusion(last, classes, run.plot_path("confusion"), accuracy(last))
    what = "test accuracy, its labels as given," if noisy.clean is None else "clean test accuracy"
    sys.stdout.write(f"{what} {100 * accuracy(last):.2f} % (last epoch); run folder {run.folder}\n")
