"""Predictions of a trained run on new images; the data it was trained on is not needed."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.predict import Predictor, Preprocessing, read_about
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from flowaug.classifier import AugmentedClassifier
from flowaug.cli.measures import predictor
from flowaug.cli.models import PROGRAM, build_model
from flowaug.cli.recipes import TrainConfig
from flowaug.networks import Standardise

ENTROPY_SAMPLES = 50


def load_model(
    folder: str | pathlib.Path, which: str = "auto", device: str | torch.device = "cpu"
) -> tuple[TrainConfig, AugmentedClassifier, Preprocessing, list[str]]:
    """Configuration, model in evaluation mode, preprocessing and classes of a run.

    Raises:
        UserError: The folder holds no run, a damaged one, or one of before checkpoints described themselves.
    """
    config = read_config(folder, TrainConfig, PROGRAM)
    path, about = read_about(folder, which)
    images, classes = Preprocessing.from_plain(about["preprocessing"], str(path)), list(about["classes"])
    standardise = Standardise(torch.zeros(images.channels), torch.ones(images.channels))  # the checkpoint's come next
    model = build_model(config, images.channels, images.size, len(classes), standardise)
    load_part(model, path, "model")
    return config, model.to(device).eval(), images, classes


def load_predictor(folder: str | pathlib.Path, which: str = "auto", device: str = "auto") -> Predictor:
    """A predictor by the mean over augmented views, with the entropy of each image's transforms in nats.

    What it exports is the classifier alone, on the images as they are.
    """
    runtime = Runtime.from_env(device)
    config, model, images, classes = load_model(folder, which, runtime.device)
    probabilities = predictor(config, model, runtime)

    @torch.no_grad()
    def outputs(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        more = {"entropy": model.augmenter.entropy(batch, ENTROPY_SAMPLES)} if config.learns else {}
        return probabilities(batch), more

    return Predictor(model.classifier, images, classes, outputs=outputs, device=runtime.device)
