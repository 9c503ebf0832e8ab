"""`fdiv-noisy evaluate`: a trained classifier on clean labels."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import replace

import torch
from robustvision_core.predict import Preprocessing
from robustvision_core.run.folder import load_checkpoint
from robustvision_core.run.runtime import Runtime

from fdiv_noisy.cli import plots
from fdiv_noisy.cli.classifier import Classifier, confusion_on_test, make_classifier, summarise
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.options import EvaluateConfig
from fdiv_noisy.cli.recipes import TrainConfig


def evaluate(config: EvaluateConfig) -> None:
    """Print accuracy and recall of each class."""
    trained = config.trained(TrainConfig, "fdiv-noisy train", noise="none", init="", weights="")
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        noisy = load(trained)
        classifier = as_trained(make_classifier(trained, noisy.train), config)
        config.load_into(classifier.network.to(runtime.device))
        found = confusion_on_test(trained, classifier, noisy, runtime)
    summary = summarise(found, noisy.test.classes)
    lines = [f"{name:<16} {100 * value:6.2f} %" for name, value in summary["recall"].items()]
    sys.stdout.write("\n".join(["recall", *lines, f"{'accuracy':<16} {100 * summary['accuracy']:6.2f} %"]) + "\n")
    if config.out:
        plots.confusion(found, noisy.test.classes, config.out, summary["accuracy"])


def as_trained(classifier: Classifier, config: EvaluateConfig) -> Classifier:
    """The classifier with the normalisation that its checkpoint names; earlier ones have that of the training set."""
    about = load_checkpoint(pathlib.Path(config.run) / f"{config.which}.pt").get("about")
    if not about:
        return classifier
    prepared = Preprocessing.from_plain(about["preprocessing"], config.run)
    return replace(classifier, mean=torch.tensor(prepared.mean), std=torch.tensor(prepared.std))
