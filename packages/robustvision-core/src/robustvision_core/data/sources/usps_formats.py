"""The other files that USPS goes around in: the text tables `zip.train.gz` and `zip.test.gz`, and `usps.h5`."""

from __future__ import annotations

import gzip
import pathlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustvision_core.data.image_set import describe
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError


def find_other_format(query: Query) -> tuple[Tensor, Tensor] | None:
    """Images and labels of the query's split where one of the other files lies there and LIBSVM's does not."""
    places = [query.root / query.name, query.root]
    libsvm = "usps.bz2" if query.split == "train" else "usps.t.bz2"
    if any((place / libsvm).is_file() for place in places):
        return None
    for place in places:
        for name in (f"zip.{query.split}.gz", f"zip.{query.split}"):
            if (place / name).is_file():
                return read_zip_table(place / name)
        if (place / "usps.h5").is_file():
            return read_h5(place / "usps.h5", query.split)
    return None


def read_zip_table(path: pathlib.Path) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) uint8 and labels (N,) int64 in 0..9 of one of the text tables, packed by gzip or not.

    A line is the digit and 256 values from -1 (black) to 1 (white).

    Raises:
        DataError: The file is truncated or holds something else.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("ascii")
        table = np.array([line.split() for line in text.split("\n") if line.strip()], dtype=np.float64)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is truncated or no USPS file: {error}") from error
    if table.ndim != 2 or table.shape[1] != 257:
        raise DataError(f"{path} holds a table {table.shape}, expected a digit and 256 values a line")
    return _images(table[:, 1:], -1.0, path), _labels(table[:, 0], path)


def read_h5(path: pathlib.Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) uint8 and labels (N,) int64 in 0..9 of a split of the HDF5 file.

    `SPLIT/data` is (N, 256) from 0 (black) to 1 (white), `SPLIT/target` (N,) the digits.

    Raises:
        DataError: The file is truncated or holds something else, or `h5py` is not installed.
    """
    try:
        import h5py  # pyright: ignore[reportMissingImports]  # for this one file, and not everywhere
    except ModuleNotFoundError:
        raise DataError(f"{path} needs h5py: pip install h5py, or give zip.{split}.gz or usps.bz2") from None
    try:
        with h5py.File(path, "r") as held:
            data, target = (np.asarray(held[split][name]) for name in ("data", "target"))
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{path} is truncated or no USPS file: {error}") from error
    if data.ndim != 2 or data.shape[1] != 256 or target.shape != data.shape[:1]:
        raise DataError(f"{path}: {split} holds {describe(data)} and {describe(target)}, expected (N, 256) and (N,)")
    return _images(data.astype(np.float64), 0.0, path), _labels(target, path)


def _images(values: Any, black: float, path: pathlib.Path) -> Tensor:
    if values.size and not (values.min() >= black and values.max() <= 1):
        raise DataError(f"{path} holds values from {values.min():g} to {values.max():g}, expected {black:g} to 1")
    pixels = np.round((values - black) * (255 / (1 - black))).astype(np.uint8)
    return torch.from_numpy(pixels).view(-1, 1, 16, 16)


def _labels(values: Any, path: pathlib.Path) -> Tensor:
    if values.size and (not np.isin(values, np.arange(10)).all()):
        raise DataError(f"{path} holds a label that is no digit from 0 to 9")
    return torch.from_numpy(np.asarray(values, dtype=np.int64))
