"""Base, validation and novel classes, as a configuration asks for them."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from robustvision_core import data
from robustvision_core.data import ImageSet
from robustvision_core.errors import MissingSplitError, UserError

from rml_meta.cli.layouts import PARTS, read_part
from rml_meta.cli.recipes import TrainConfig

SIZED = ("glyphs", "omniglot", "tiny-imagenet", "tiny-imagenet-few-shot", "digits")
"""Sets that are best loaded at the size they are wanted in."""

EVERY = 6  # of the base classes of a set without validation classes, each sixth one validates


class ClassSplit(NamedTuple):
    """Sets that share no class, with images of one size and number of channels."""

    base: ImageSet
    val: ImageSet
    novel: ImageSet

    @property
    def channels(self) -> int:
        """C of every image."""
        return self.base.shape[0]


def load(config: TrainConfig, whole: bool = False) -> ClassSplit:
    """The base classes of `data`, and the validation and novel classes of `target` or of `data`.

    Args:
        config: Says which.
        whole: Take all classes of `target` for novel ones, as nothing is trained on them.

    Raises:
        UserError: A set cannot be had, or has too few classes; the message says why.
    """
    where = (config.image.size, config.data_root, config.download)
    base, val, novel = load_classes(config.data, *where)
    if config.target and config.target != config.data:
        _, val, novel = (
            load_classes(config.target, *where) if not whole else (base, val, load_all(config.target, *where))
        )
    coloured = any(look.startswith("colour") for look in (config.training_environments, config.environments.test))
    channels = 3 if coloured else base.shape[0]
    base, val, novel = (with_channels(part, channels) for part in (base, val, novel))
    return ClassSplit(rotated_classes(base) if config.image.rotations else base, val, novel)


@functools.lru_cache(maxsize=4)  # a grid trains on the same few sets many times
def load_classes(name: str, size: int, root: str = "", download: bool = False) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Base, validation and novel classes of one set, at `size` pixels.

    Splits of classes that come with the set are used. A set without validation classes gives each sixth base class.
    One whose test set has the classes of its training set, or that has no test set, is cut as CUB usually is: of its
    training classes in order, numbers 0, 2, 4, ... are base, 1, 5, 9, ... validation and 3, 7, 11, ... novel.
    """
    train, val, novel = (_part(name, part, size, root, download) for part in ("train", "val", "test"))
    assert train is not None
    if novel is None or set(novel.classes) & set(train.classes):
        return choose(train, 2, [0]), choose(train, 4, [1]), choose(train, 4, [3])
    if val is None:
        return choose(train, EVERY, range(EVERY - 1)), choose(train, EVERY, [EVERY - 1]), novel
    return train, val, novel


def load_all(name: str, size: int, root: str = "", download: bool = False) -> ImageSet:
    """Every class of a set, those of all its splits; splits of the same classes are one, train."""
    parts = [part for part in (_part(name, of, size, root, download) for of in PARTS) if part is not None]
    whole = parts[0]
    for part in parts[1:]:
        if not set(part.classes) & set(whole.classes):
            labels = torch.cat([whole.labels, part.labels + whole.num_classes])
            part = with_channels(part, whole.shape[0])
            whole = ImageSet(
                torch.cat([whole.images, part.images]), labels, whole.classes + part.classes, name=whole.name
            )
    return whole


def comes_in_one_part(name: str, size: int, root: str = "", download: bool = False) -> bool:
    """Whether a set is somebody's own folder or file, with no novel classes set apart in it."""
    return ":" in name and _part(name, "test", size, root, download) is None


def choose(images: ImageSet, period: int, rests: range | list[int]) -> ImageSet:
    """The classes whose number leaves one of the `rests` when divided by `period`."""
    chosen = [number for number in range(images.num_classes) if number % period in rests]
    if not chosen:
        raise UserError(f"{images.name} has {images.num_classes} classes: too few to split into base, val and novel")
    return data.select_classes(images, chosen)


def with_channels(images: ImageSet, channels: int) -> ImageSet:
    """Images of 1 or 3 channels brought to `channels`: grey by the mean."""
    if images.shape[0] == channels:
        return images
    if channels == 3:
        return data.to_rgb(images)
    grey = images.images.float().mean(1, keepdim=True).round_().to(torch.uint8)
    return replace(images, images=grey)


def rotated_classes(images: ImageSet) -> ImageSet:
    """Four times the classes: as they are, and rotated by 90, 180 and 270 degrees."""
    rotated = torch.cat([images.images.rot90(quarters, (-2, -1)) for quarters in range(4)])
    labels = torch.cat([images.labels + quarters * images.num_classes for quarters in range(4)])
    classes = [
        f"{name}, {90 * quarters} degrees" if quarters else name for quarters in range(4) for name in images.classes
    ]
    return ImageSet(rotated, labels, tuple(classes), images.ids.repeat(4), images.name)


def _part(name: str, part: str, size: int, root: str, download: bool) -> ImageSet | None:
    """One split of a set, or None where the set has no such split."""
    kind, _, path = name.partition(":")
    if kind == "folder":
        return _folder_part(path, part, size, root)
    known = data.options_of(kind)
    sized = "image_size" if "image_size" in known else "size"
    options: dict[str, Any] = {sized: size} if kind in SIZED or sized == "image_size" else {}
    options |= {"own_classes": True} if "own_classes" in known else {}
    try:
        found = data.load(name, part, root or None, download, **options)
    except MissingSplitError:
        if part == "train":
            raise
        return None
    return data.resize(found, size)


def _folder_part(path: str, part: str, size: int, root: str) -> ImageSet | None:
    """A part of a folder in any layout; a relative path is one from here, else from the folder of all data sets."""
    if not path:
        raise UserError("data set 'folder:' is written folder:PATH")
    folder = pathlib.Path(path).expanduser()
    shared = data.data_root(root or None) / folder
    return read_part(shared if not folder.exists() and shared.exists() else folder, part, size)
