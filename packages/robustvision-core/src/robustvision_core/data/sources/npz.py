"""NumPy archives of images and labels."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet, describe
from robustvision_core.data.reading.npz_archive import NpzArchive
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError, unknown_name

IMAGE_KEYS = ("images", "x", "data")
LABEL_KEYS = ("labels", "y", "targets")
CLASS_KEYS = ("classes", "class_names")
MANY = 1000  # classes that even a small set may number without naming them
LAYOUTS = ("auto", "nchw", "nhwc")


def load_npz(query: Query, layout: str = "auto") -> ImageSet:
    """The images `x_<split>` and labels `y_<split>` of an `.npz`; see `read_npz`."""
    return read_npz(pathlib.Path(query.path).expanduser(), query.split, layout)


def read_npz(path: pathlib.Path, split: str, layout: str = "auto") -> ImageSet:
    """One split of an `.npz` file, never unpickling.

    Images are uint8, (N, H, W), (N, C, H, W) or (N, H, W, C), under `x_<split>`, `images_<split>` or
    `<split>_images`; or, for `train` in a file of one set, under `images` or `x`. Labels are integers, (N,) or
    (N, 1), under `y_<split>`, `labels_<split>`, `labels` or `y`. Names under `classes` are optional.

    Args:
        path: The file.
        split: The split to read.
        layout: `nchw` or `nhwc` for images of 4 dimensions; `auto` looks where the 1 or 3 channels are.

    Raises:
        DataError: The file is missing, truncated or holds something else; says what was found and expected.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    with NpzArchive(path) as archive:
        image_key = archive.find(IMAGE_KEYS, split)
        label_key = archive.find(LABEL_KEYS, split)
        images = to_nchw(archive.array(image_key), layout, f"{path}: {image_key}")
        labels = _labels(archive.array(label_key), f"{path}: {label_key}")
        classes = _classes(archive, label_key)
    if len(images) != len(labels):
        raise DataError(f"{path}: {len(images)} {image_key} but {len(labels)} {label_key}")
    return ImageSet(images, labels, classes, name=f"{path.name}/{split}")


def to_nchw(array: np.ndarray[Any, Any], layout: str, name: str) -> Tensor:
    """An array of images as (N, C, H, W) uint8; arguments as in `read_npz`, `name` for errors."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(f"{name} is {describe(array)}: expected uint8 (N, H, W), (N, C, H, W) or (N, H, W, C)")
    images = torch.from_numpy(array)
    if images.dim() == 3:
        return images[:, None]
    if layout == "auto":
        fits = [where for where, axis in (("nchw", 1), ("nhwc", 3)) if images.shape[axis] in (1, 3)]
        if len(fits) != 1:
            raise DataError(f"{name} is {describe(array)}: cannot tell its channels, give layout nchw or nhwc")
        layout = fits[0]
    return images.permute(0, 3, 1, 2).contiguous() if layout == "nhwc" else images


def _labels(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.size != len(array):
        raise DataError(f"{name} is {describe(array)}: expected integers (N,) or (N, 1)")
    return torch.from_numpy(array.astype(np.int64).reshape(-1))


def _classes(archive: NpzArchive, label_key: str) -> tuple[str, ...]:
    for key in CLASS_KEYS:
        if key in archive.keys:
            return tuple(map(str, archive.array(key).reshape(-1)))
    # every split's labels count, so that a split without the last class numbers the others alike
    stem = next(stem for stem in LABEL_KEYS if stem in label_key.split("_"))
    labels = [archive.array(key) for key in archive.keys if stem in key.split("_")]
    labels = [part for part in labels if part.size and part.dtype.kind in "iu"]
    count = max((int(part.max()) for part in labels), default=-1) + 1
    images = sum(part.size for part in labels)
    if count > max(MANY, 10 * images):
        raise DataError(
            f"{archive.path}: {label_key} has the label {count - 1}, and {images} images cannot have so many classes: "
            "number them from 0, or name them under classes"
        )
    return tuple(map(str, range(count)))
