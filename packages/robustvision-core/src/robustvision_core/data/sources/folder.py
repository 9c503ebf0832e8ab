"""A folder of images, one subfolder a class."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robustvision_core.data.decode import IMAGE_SUFFIXES, decode_all
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry import Query, register
from robustvision_core.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFiles:
    """A labelled list of image files, for what is too large for memory; see ``FileBatches``.

    Attributes:
        paths: The N files.
        labels: (N,) int64.
        classes: Name of each class.
        name: What to call them in messages.
    """

    paths: tuple[pathlib.Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.paths)


@register("folder", "your images, one subfolder a class; options image_size, grey, max_gib", SPLITS, takes_path=True)
def load_folder(query: Query, image_size: int = 64, grey: bool = False, max_gib: float = 4.0) -> ImageSet:
    """The images of ``PATH/<split>/<class>/``, or of ``PATH/<class>/`` where PATH has no splits, decoded into memory.

    Args:
        query: Its ``path`` is the folder, relative to the working directory. A folder without splits is ``train``.
        image_size: The shorter side is resized to this and the middle square of this side kept.
        grey: One channel rather than RGB.
        max_gib: Largest size in memory, in GiB.

    Raises:
        DataError: The folder is missing or empty, a file is no image, or the set is larger than ``max_gib``.
    """
    if image_size < 1:
        raise DataError(f"image_size is {image_size}: expected 1 or more pixels")
    files = folder_files(query.path, query.split)
    gib = len(files) * (1 if grey else 3) * image_size**2 / 2**30
    if gib > max_gib:
        raise DataError(
            f"{files.name}: {len(files)} images of {image_size}x{image_size} need {gib:.1f} GiB, more than max_gib "
            f"{max_gib:g}: raise it, lower image_size, or batch from the files with FileBatches(folder_files(...))"
        )
    images = decode_all(files.paths, [str(path) for path in files.paths], files.name, grey=grey, size=image_size)
    return ImageSet(images, files.labels, files.classes, name=files.name)


def folder_files(path: str | pathlib.Path, split: str = "train") -> ImageFiles:
    """The image files of one split of a folder, sorted by class and name.

    Classes are the subfolders of ``train`` where there is one, so that every split numbers them alike.

    Raises:
        DataError: A folder is missing, holds no images, or a split has a class that ``train`` has not.
    """
    top = pathlib.Path(path).expanduser()
    if not top.is_dir():
        raise DataError(f"there is no folder {top}: expected {top}/<class>/<image> or {top}/train/<class>/<image>")
    has_splits = any((top / name).is_dir() for name in SPLITS)
    if not has_splits and split != "train":
        raise DataError(f"{top} has no folder {split}: make one, or load 'train' and cut it with split()")
    folder = top / split if has_splits else top
    if not folder.is_dir():
        raise DataError(f"{top} has no folder {split}")
    classes = _subfolders(top / "train" if has_splits and (top / "train").is_dir() else folder)
    own = _subfolders(folder)
    if extra := sorted(set(own) - set(classes)):
        raise DataError(f"{folder} has a class {extra[0]!r} that {top / 'train'} has not")
    found = [(file, label) for label, name in enumerate(classes) for file in _images(folder / name)]
    if not found:
        raise DataError(f"{folder} holds no images: expected {folder}/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})")
    paths, labels = zip(*found, strict=True)
    return ImageFiles(paths, torch.tensor(labels), tuple(classes), str(folder))


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
