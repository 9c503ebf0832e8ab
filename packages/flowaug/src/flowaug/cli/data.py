"""The images that a configuration asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core import data
from robustvision_core.data import ImageSet
from robustvision_core.errors import UserError

from flowaug.cli.recipes import TrainConfig

SIZE_OPTION = {
    "sprites": "size",
    "digits": "size",
    "mnist-01569": "size",
    "rot-mnist-lt": "size",
    "folder": "image_size",
}
"""How a set takes the size of its images; the others are padded with black, or made smaller."""

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
    whole, test = (_load(config, part) for part in ("train", "test"))
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


def _load(config: TrainConfig, part: str) -> ImageSet:
    kind = config.data.partition(":")[0]
    images = config.images
    options: dict[str, Any] = {"degrees": images.degrees, "modes": images.modes, "rho": images.rho}
    own = kind in SIZE_OPTION and (images.size or 0) >= NATIVE.get(kind, 0)
    if own:
        options[SIZE_OPTION[kind]] = images.size
    if kind == "sprites" and part == "train" and images.train_size:  # draws no more than are used
        options["count"] = images.train_size + (images.val_size or 0)
    given = {name: value for name, value in options.items() if value is not None}
    loaded = data.load(config.data, part, config.data_root or None, config.download, **given)
    if own or images.size is None:
        return loaded
    smaller = images.size < max(loaded.shape[1:])
    return data.resize(loaded, images.size) if smaller else data.pad_to(loaded, images.size)
