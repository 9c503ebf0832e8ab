"""Labelled lists of image files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustvision_core.data.reading.decode import IMAGE_SUFFIXES
from robustvision_core.errors import DataError, MissingSplitError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFiles:
    """A labelled list of image files, for what is too large for memory; see
    `robustvision_core.data.FileBatches`.

    Attributes:
        paths: The N files; or what gives the bytes of an image inside another file by `read_bytes()` and says by `str`
            where it is.
        labels: (N,) int64.
        classes: Name of each class.
        name: What to call them in messages.
        where: Says of a number where it is listed, for messages, as `"photos.csv, line 7"`; None where no table lists
            them.
    """

    paths: Sequence[Any]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    where: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, row: int) -> str:
        """What to call file number `row` in messages."""
        return f"{self.where(row)}: {self.paths[row]}" if self.where else str(self.paths[row])


def folder_files(path: str | pathlib.Path, split: str = "train") -> ImageFiles:
    """The image files of one split of a folder, sorted by class and name.

    Classes are the subfolders of `train` where there is one, so that every split numbers them alike.

    Raises:
        DataError: A folder is missing, holds no images, or a split has a class that `train` has not.
    """
    top = pathlib.Path(path).expanduser()
    if not top.is_dir():
        raise DataError(f"there is no folder {top}: expected {top}/<class>/<image> or {top}/train/<class>/<image>")
    has_splits = any((top / name).is_dir() for name in SPLITS)
    if not has_splits and split != "train":
        raise MissingSplitError(f"{top} has no folder {split}: make one, or load 'train' and cut it with split()")
    folder = top / split if has_splits else top
    if not folder.is_dir():
        raise MissingSplitError(f"{top} has no folder {split}")
    classes = subfolders(top / "train" if has_splits and (top / "train").is_dir() else folder)
    own = subfolders(folder)
    if extra := sorted(set(own) - set(classes)):
        raise DataError(f"{folder} has a class {extra[0]!r} that {top / 'train'} has not")
    return class_files(folder, classes)


def class_files(folder: pathlib.Path, classes: list[str]) -> ImageFiles:
    """The image files of `folder/<class>/`, sorted by class and name.

    Raises:
        DataError: There are none.
    """
    found = [(file, label) for label, name in enumerate(classes) for file in _images(folder / name)]
    if not found:
        raise DataError(f"{folder} holds no images: expected {folder}/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})")
    paths, labels = zip(*found, strict=True)
    return ImageFiles(paths, torch.tensor(labels), tuple(classes), str(folder))


def subfolders(folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder, sorted, but for hidden ones."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.rglob("*") if is_image(file) and file.is_file())


def is_image(path: pathlib.PurePath) -> bool:
    """Whether a name is that of an image, not of a hidden file as macOS's `._NAME`."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
