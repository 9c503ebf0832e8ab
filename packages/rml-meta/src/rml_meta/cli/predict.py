"""`rml-meta predict` and `export`: new classes from a folder of examples, for images that are to be told apart."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from robustvision_core.errors import DataError, UserError
from robustvision_core.predict import Predictor, Preprocessing, read_about, write_predictions
from robustvision_core.predict import export as write_export
from robustvision_core.predict.preprocessing import read_those_that_can
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from rml_meta.cli.layouts import class_folders
from rml_meta.cli.learners import build
from rml_meta.cli.options import ExportConfig, PredictConfig
from rml_meta.cli.recipes import HEADED, TrainConfig
from rml_meta.cli.taught import Features, taught
from rml_meta.methods.embedding import EmbeddingMethod

Support = str | pathlib.Path | Mapping[str, Sequence[Any]]
"""A folder of class folders, or images of each class by its name: paths, PIL images, arrays or tensors."""


def predict(config: PredictConfig) -> None:
    """Learn the classes of the support folder, and write what the images are taken for."""
    run = load_run(config.run, config.which, config.device)
    write_predictions(run.learn(config.support, strict=config.strict), config)


def export(config: ExportConfig) -> None:
    """Write the classifier that the support folder teaches, or without one the features, in another form."""
    run = load_run(config.run, config.which, "cpu")
    path = write_export(run.learn(config.support) if config.support else run.extractor(), config.out, config.format)
    what = "logits" if config.support else "features"
    sys.stdout.write(f"{path}: {what} agree with the network's; images are prepared as preprocessing.json says\n")


class FewShotRun(Predictor):
    """A trained run that is yet to be shown its classes: `learn` them, and predict with what that returns.

    Args:
        config: Of its training.
        path: Its checkpoint.
        about: What that says of itself.
        device: Where it runs.
    """

    def __init__(self, config: TrainConfig, path: pathlib.Path, about: Mapping[str, Any], device: torch.device) -> None:
        self.config, self.path, self.base = config, path, tuple(about["classes"])
        prepared = Preprocessing.from_plain(about["preprocessing"], str(path))
        super().__init__(nn.Identity(), prepared, (), outputs=_untaught, device=device)

    def learn(self, support: Support, *, strict: bool = True) -> Predictor:
        """A predictor of the classes of a folder `support/<class>/<image>`, or of a dict of class to images.

        Any number of classes, any number of images each.

        Args:
            support: What teaches it.
            strict: Raise at an image that cannot be read; else it is named on the error stream and left out.

        Raises:
            UserError: The run's method cannot learn that many classes.
            DataError: There are no two classes, or an image cannot be read, or none of a class can.
        """
        images, labels, classes = read_support(support, self.preprocessing, strict=strict)
        method, most = self.config.method, self.config.ways
        if method in HEADED and len(classes) > most:
            raise UserError(
                f"{method} was trained for {most} classes a task, and the support has {len(classes)}: take fewer, or a "
                "method that compares embeddings, as protonet"
            )
        ways = most if method in HEADED else len(classes)
        where = self.device
        return taught(self._method(ways), self.preprocessing, images.to(where), labels.to(where), classes)

    def extractor(self) -> Predictor:
        """A predictor whose network gives the features (B, D) of images.

        Raises:
            UserError: The run's method adapts its features to the support set.
        """
        method = self._method(self.config.ways)
        if not isinstance(method, EmbeddingMethod):
            raise UserError(f"{self.config.method} adapts its features to examples of the classes: give --support")
        return Predictor(Features(method.backbone), self.preprocessing, (), device=self.device)

    def _method(self, ways: int) -> Any:
        method = build(self.config.changed(ways=ways, weights=""), self.preprocessing.channels, len(self.base))
        load_part(method, self.path, "method")
        return method.to(self.device)


def _untaught(images: Tensor) -> Any:
    raise UserError("this run has not been shown its classes: predict with what .learn(support) returns")


def load_run(folder: str | pathlib.Path, which: str = "auto", device: str = "auto") -> FewShotRun:
    """A trained run, ready to learn classes from examples; the data it was trained on is not needed.

    Args:
        folder: The run folder.
        which: `best`, `checkpoint`, or `auto` for best where there is one.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: The folder holds no run of this package.
    """
    path, about = read_about(folder, which)
    return FewShotRun(read_config(folder, TrainConfig, "rml-meta train"), path, about, Runtime.from_env(device).device)


def load_predictor(
    folder: str | pathlib.Path, support: Support, which: str = "auto", device: str = "auto"
) -> Predictor:
    """`load_run(folder, which, device).learn(support)`."""
    return load_run(folder, which, device).learn(support)


def read_support(
    support: Support, prepared: Preprocessing, *, strict: bool = True
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images (S, C, H, W) uint8, labels (S,) and names of the classes of what is to be learned."""
    sources, labels, classes = _listed(support) if isinstance(support, Mapping) else _in_folder(support)
    if len(classes) < 2:
        where = "the support" if isinstance(support, Mapping) else support
        raise DataError(f"{where} has one class, {', '.join(classes)!r}: expected two or more to tell apart")
    kept, images = read_those_that_can(prepared, sources, strict=strict)
    labels = labels[kept]
    if lost := [name for number, name in enumerate(classes) if number not in labels]:
        raise DataError(f"none of the images of {lost[0]} can be read")
    return images, labels, classes


def _listed(support: Mapping[str, Sequence[Any]]) -> tuple[list[Any], Tensor, tuple[str, ...]]:
    """Images, labels and names of the classes of a dict of class to images."""
    given = {str(name): list(images) for name, images in support.items() if len(images)}
    counts = torch.tensor([len(images) for images in given.values()], dtype=torch.long)
    labels = torch.arange(len(given)).repeat_interleave(counts)
    return [image for images in given.values() for image in images], labels, tuple(given)


def _in_folder(support: str | pathlib.Path) -> tuple[list[Any], Tensor, tuple[str, ...]]:
    """Files, labels and names of the classes of a folder of class folders."""
    top = pathlib.Path(support).expanduser()
    if not top.is_dir():
        raise DataError(f"there is no folder {top}: expected {top}/<class>/<image>, some images of each class to learn")
    files = class_folders(top)
    return list(files.paths), files.labels, files.classes
