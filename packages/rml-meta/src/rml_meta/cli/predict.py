"""`rml-meta predict`: new classes from a folder of examples, and the images that are to be told apart."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.errors import DataError, UserError
from robustvision_core.predict import Predictor, Preprocessing, read_about, write_predictions
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from rml_meta.cli.layouts import class_folders
from rml_meta.cli.learners import build
from rml_meta.cli.options import PredictConfig
from rml_meta.cli.recipes import HEADED, TrainConfig
from rml_meta.methods import FewShotMethod


def predict(config: PredictConfig) -> None:
    """Learn the classes of the support folder, and write what the images are taken for."""
    write_predictions(load_predictor(config.run, config.support, config.which, config.device), config)


def load_predictor(
    folder: str | pathlib.Path, support: str | pathlib.Path, which: str = "auto", device: str = "auto"
) -> Predictor:
    """A run's method, taught by a folder of classes; the data it was trained on is not needed.

    Args:
        folder: The run folder.
        support: A folder of class folders: any number of classes, any number of images each.
        which: `best`, `checkpoint`, or `auto` for best where there is one.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: The run's method cannot learn that many classes.
        DataError: The support folder holds no classes, or an image in it cannot be read.
    """
    path, about = read_about(folder, which)
    config = read_config(folder, TrainConfig, "rml-meta train")
    prepared = Preprocessing.from_plain(about["preprocessing"], str(path))
    images, labels, classes = read_support(support, prepared)
    if config.method in HEADED and len(classes) > config.ways:
        raise UserError(
            f"{config.method} was trained for {config.ways} classes a task, and {support} has {len(classes)}: take "
            "fewer, or a method that compares embeddings, as protonet"
        )
    ways = config.ways if config.method in HEADED else len(classes)
    method = build(config.changed(ways=ways), prepared.channels, len(about["classes"]))
    load_part(method, path, "method")
    where = Runtime.from_env(device).device
    return taught(method.to(where), prepared, images.to(where), labels.to(where), classes)


def read_support(folder: str | pathlib.Path, prepared: Preprocessing) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images (S, C, H, W) uint8, labels (S,) and names of the classes of a folder of class folders."""
    top = pathlib.Path(folder).expanduser()
    if not top.is_dir():
        raise DataError(f"there is no folder {top}: expected {top}/<class>/<image>, some images of each class to learn")
    files = class_folders(top)
    if len(files.classes) < 2:
        raise DataError(f"{top} has one class, {', '.join(files.classes)!r}: expected two or more to tell apart")
    return torch.stack([prepared.read(path) for path in files.paths]), files.labels, files.classes


def taught(
    method: FewShotMethod, prepared: Preprocessing, images: Tensor, labels: Tensor, classes: tuple[str, ...]
) -> Predictor:
    """A predictor of a method that has seen the support images (S, C, H, W) uint8 with labels (S,).

    Each image is judged by itself: a method that would normalise queries together takes the statistics of the support
    images instead.
    """
    method.transductive = False
    state = method.fit_support(prepared.normalise(images), labels)

    class Taught(nn.Module):
        """Normalised images to logits of the classes."""

        def __init__(self) -> None:
            super().__init__()
            self.method = method

        def forward(self, images: Tensor) -> Tensor:
            """Logits (B, N) of images (B, C, H, W)."""
            return self.method.predict(state, images)[:, : len(classes)]

    return Predictor(Taught(), prepared, classes, device=images.device)
