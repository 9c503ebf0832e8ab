"""A folder of images, one subfolder a class."""

from __future__ import annotations

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.decode import decode_all
from robustvision_core.data.reading.image_files import ImageFiles, folder_files
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError


def load_folder(query: Query, image_size: int = 64, grey: bool = False, max_gib: float = 4.0) -> ImageSet:
    """The images of `PATH/<split>/<class>/`, or of `PATH/<class>/` where PATH has no splits, decoded into memory.

    Args:
        query: Its `path` is the folder, relative to the working directory. A folder without splits is `train`.
        image_size: The shorter side is resized to this and the middle square of this side kept.
        grey: One channel rather than RGB.
        max_gib: Largest size in memory, in GiB.

    Raises:
        DataError: The folder is missing or empty, a file is no image, or the set is larger than `max_gib`.
    """
    return decode_files(folder_files(query.path, query.split), image_size, grey, max_gib)


def decode_files(files: ImageFiles, image_size: int, grey: bool, max_gib: float) -> ImageSet:
    """The images of `files`, decoded into memory; arguments and errors as of `load_folder`."""
    if image_size < 1:
        raise DataError(f"image_size is {image_size}: expected 1 or more pixels")
    gib = len(files) * (1 if grey else 3) * image_size**2 / 2**30
    if gib > max_gib:
        raise DataError(
            f"{files.name}: {len(files)} images of {image_size}x{image_size} need {gib:.1f} GiB, more than max_gib "
            f"{max_gib:g}: raise it, lower image_size, or batch from the files with FileBatches(folder_files(...))"
        )
    images = decode_all(files.paths, [str(path) for path in files.paths], files.name, grey=grey, size=image_size)
    return ImageSet(images, files.labels, files.classes, name=files.name)
