"""The images that a configuration asks for."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from robustvision_core import data
from robustvision_core.data import ImageSet
from robustvision_core.data.reading.npz_archive import NpzArchive
from robustvision_core.errors import DataError, UserError

from flowaug.cli.recipes import TrainConfig

SIZE_OPTION = {
    "sprites": "size",
    "digits": "size",
    "mnist-01569": "size",
    "rot-mnist-lt": "size",
}
"""How a set takes the size of its images, beside those of files; others are padded with black, or made smaller."""

ANGLES = {"degrees": math.pi / 180, "angle": 1.0}
"""Arrays of an npz that say how far each image is rotated, clockwise: their stem, and its unit in radians."""

NATIVE = {"mnist-01569": 28, "rot-mnist-lt": 28}
"""The least size that a set takes itself."""

SPLIT_SEED = 0  # not the run's: runs of several seeds share their data


@dataclass(frozen=True)
class Sets:
    """What one run trains, selects and is tested on; `val` is None where nothing is held out."""

    train: ImageSet
    val: ImageSet | None
    test: ImageSet


def load(config: TrainConfig) -> Sets:
    """Training, validation and test images.

    Raises:
        UserError: The data or its options cannot be had; the message says why.
    """
    config = config.settled()
    whole, test = data.train_and_test(lambda part: _load(config, part))
    held = config.images.val_size or 0
    size = config.images.train_size or len(whole) - held
    if size < 1 or size + held > len(whole):
        raise UserError(
            f"{config.data} has {len(whole)} training samples: train_size {config.images.train_size or 0} "
            f"and val_size {held} do not fit"
        )
    if size == len(whole):
        return Sets(whole, None, test)
    train, val = _parts(whole, size, held)
    return Sets(train, val if held else None, test)


def leading(images: ImageSet, n: int) -> ImageSet:
    """The first `n` images, or as many of each class as it has in proportion where they are sorted by class.

    `n` 0, or more than there are, takes all.
    """
    if not 0 < n < len(images):
        return images
    return _parts(images, n, 0)[0]


def _parts(images: ImageSet, size: int, held: int) -> tuple[ImageSet, ImageSet]:
    """The first `size` and the last `held` images; drawn by class where either would be of a few classes alone."""
    if sorted_by_class(images):
        val, train = data.split(images, [held, size], seed=SPLIT_SEED)
        return train, val
    return data.first(images, size), images.take(torch.arange(len(images) - held, len(images)))


def sorted_by_class(images: ImageSet) -> bool:
    """Whether all images of a class come before those of the next, as folders and Tiny ImageNet are read."""
    return bool((images.labels[1:] >= images.labels[:-1]).all())


def load_images(name: str, part: str, root: str = "", download: bool = False, **options: Any) -> ImageSet:
    """A set of the registry; that of `npz:PATH` with the rotations of its images, where the file holds them.

    They are the arrays `degrees_train` and `degrees_test`, or `angle_train` and `angle_test` in radians, (N,) and
    clockwise, as sprites have them.

    Raises:
        UserError: The set or its options cannot be had, or there is not one finite angle an image.
    """
    loaded = data.load(name, part, root or None, download, **options)
    kind, _, path = name.partition(":")
    angles = _angles(pathlib.Path(path).expanduser(), part, len(loaded)) if kind == "npz" else None
    return loaded if angles is None else replace(loaded, extras={**loaded.extras, "angle": angles})


def _angles(path: pathlib.Path, part: str, count: int) -> torch.Tensor | None:
    """Angles (count,) in radians of a part of an npz file, or None where it has none."""
    with NpzArchive(path) as archive:
        key = next((f"{stem}_{part}" for stem in ANGLES if f"{stem}_{part}" in archive.keys), "")
        held = archive.array(key) if key else None
    if held is None:
        return None
    if held.shape != (count,) or held.dtype.kind not in "fiu" or not np.isfinite(held).all():
        raise DataError(f"{path}: {key} is {held.shape} {held.dtype}: expected ({count},) finite numbers")
    return torch.from_numpy(held.astype(np.float32)) * ANGLES[key.removesuffix(f"_{part}")]


def _load(config: TrainConfig, part: str) -> ImageSet:
    kind = config.data.partition(":")[0]
    images = config.images
    options: dict[str, Any] = {"degrees": images.degrees, "modes": images.modes, "rho": images.rho}
    sized = SIZE_OPTION.get(kind) or ("image_size" if "image_size" in data.options_of(kind) else "")
    own = bool(sized) and (images.size or 0) >= NATIVE.get(kind, 0)
    if own:
        options[sized] = images.size
    if kind == "sprites" and part == "train" and images.train_size:  # draws no more than are used
        options["count"] = images.train_size + (images.val_size or 0)
    given = {name: value for name, value in options.items() if value is not None}
    loaded = load_images(config.data, part, config.data_root, config.download, **given)
    if own or images.size is None:
        return loaded
    smaller = images.size < max(loaded.shape[1:])
    return data.resize(loaded, images.size) if smaller else data.pad_to(loaded, images.size)
