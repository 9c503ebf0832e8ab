"""A folder of images, one subfolder a class."""

from __future__ import annotations

import sys
from collections.abc import Callable

from robustvision_core.data import storage
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.decode import decode_all
from robustvision_core.data.reading.image_files import ImageFiles, folder_files
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError


def list_folder(query: Query) -> ImageFiles:
    """The image files of a folder's split."""
    return folder_files(query.place, query.split)


def load_folder(query: Query, image_size: int = 64, grey: bool = False, max_gib: float | None = None) -> ImageSet:
    """The images of `PATH/<split>/<class>/`, or of `PATH/<class>/` where PATH has no splits, decoded.

    Args:
        query: Its `path` is the folder. A folder without splits is `train`.
        image_size: The shorter side is resized to this and the middle square of this side kept.
        grey: One channel rather than RGB.
        max_gib: Largest size in memory, in GiB; a larger set is decoded into a file. None as in
            `robustvision_core.data.storage.max_gib`.

    Raises:
        DataError: The folder is missing or empty, a file is no image, or the disk has no room.
    """
    return decode_files(list_folder(query), image_size, grey, max_gib)


def decoding(listed: Callable[..., ImageFiles]) -> Callable[..., ImageSet]:
    """From `listed(query, own_classes)` to what loads those images; options and errors as of `load_folder`.

    With `own_classes` only the classes of the split are numbered, as few-shot sets are split.
    """

    def load(
        query: Query, image_size: int = 64, grey: bool = False, max_gib: float | None = None, own_classes: bool = False
    ) -> ImageSet:
        """The listed images, decoded; options and errors as of `load_folder`."""
        return decode_files(listed(query, own_classes), image_size, grey, max_gib)

    return load


def decode_files(files: ImageFiles, image_size: int, grey: bool = False, max_gib: float | None = None) -> ImageSet:
    """The images of `files`, decoded; arguments and errors as of `load_folder`."""
    if image_size < 1:
        raise DataError(f"image_size is {image_size}: expected 1 or more pixels")
    gib = len(files) * (1 if grey else 3) * image_size**2 / 2**30
    large = gib > storage.max_gib(max_gib)
    if large:
        sys.stderr.write(
            f"{files.name}: {len(files):,} images of {image_size}x{image_size} need {gib:.1f} GiB: they are decoded "
            f"into a file in {storage.scratch()} ({storage.LIMIT_VARIABLE} says how many GiB go into memory)\n"
        )
    names = [files.name_of(row) for row in range(len(files))]
    empty = storage.mapped_empty if large else None
    images = decode_all(files.paths, names, files.name, grey=grey, size=image_size, empty=empty)
    return ImageSet(images, files.labels, files.classes, name=files.name)
