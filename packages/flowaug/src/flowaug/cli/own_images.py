"""Images of the user's own: read as a run prepares its images, and written beside a table of their transforms."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core.data import ImageSet
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.predict import Preprocessing
from robustvision_core.predict.preprocessing import read_those_that_can
from robustvision_core.predict.write import find_images
from robustvision_core.run.files import atomic_write, write_csv
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from flowaug.classifier import AugmentedClassifier
from flowaug.cli.models import PROGRAM, read_run
from flowaug.cli.options import AlignConfig, SampleConfig
from flowaug.cli.predict import load_model
from flowaug.cli.recipes import TrainConfig


@dataclass(frozen=True)
class OwnImages:
    """A trained model with the images to use it on."""

    config: TrainConfig
    model: AugmentedClassifier
    images: ImageSet
    files: list[str]
    names: list[pathlib.Path]
    """Where each image's own output goes, below the output folder."""


def read_own(options: AlignConfig | SampleConfig, runtime: Runtime) -> OwnImages:
    """The model of a run, and the images that `options.images` names.

    The run's data is not needed, but by runs of before checkpoints said how images are prepared.

    Raises:
        UserError: The folder holds no run, its augmenter learns nothing, or there is no image that can be read.
    """
    config = options.trained(TrainConfig, PROGRAM)
    if not config.learns:
        raise UserError(f"{options.run} has the augmenter {config.augmenter}, which has no distribution of transforms")
    try:
        _, model, prepared, _ = load_model(options.run, options.which, runtime.device)
    except CheckpointError:
        trained = read_run(options, runtime)
        channels = trained.sets.test.shape[0]
        model = trained.model
        prepared = Preprocessing.of(trained.sets.test.shape, torch.zeros(channels), torch.ones(channels))
    files = find_images(options.images)
    kept, images = read_those_that_can(prepared, files, strict=options.strict)
    found = [files[number] for number in kept]
    data = ImageSet(images, torch.zeros(len(images), dtype=torch.long), ("images",))
    return OwnImages(config, model, data, [os.fspath(file) for file in found], output_names(found))


def output_names(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files as PNG, relative to the folder that holds them all; those that differ in their suffix alone keep it."""
    whole = [file.resolve() for file in files]
    root = os.path.commonpath([file.parent for file in whole])
    relative = [file.relative_to(root) for file in whole]
    count = Counter(path.with_suffix("") for path in relative)
    return [path.with_suffix(".png" if count[path.with_suffix("")] == 1 else path.suffix + ".png") for path in relative]


def write_image(path: pathlib.Path, image: Tensor) -> None:
    """An image (C, H, W) in [0, 1] as a PNG file."""
    from PIL import Image

    shown = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = shown[0] if len(shown) == 1 else shown.permute(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels.numpy()).save(temporary, format="PNG")


def write_table(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file; numbers with seven significant digits."""
    written = ([f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_csv(path, [header, *written])
