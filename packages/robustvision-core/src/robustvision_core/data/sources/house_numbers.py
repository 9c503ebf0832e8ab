"""Digits from houses and envelopes: SVHN and USPS, the usual partners of MNIST in domain adaptation."""

from __future__ import annotations

import bz2
import pathlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet, describe
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.download import fetch
from robustvision_core.data.sources.usps_formats import find_other_format
from robustvision_core.errors import DataError

DIGITS = tuple("0123456789")


def load_svhn(query: Query) -> ImageSet:
    """SVHN from `train_32x32.mat` and `test_32x32.mat`; the files' label 10 is the digit 0."""
    path = _find(query, f"{query.split}_32x32.mat", "SVHN", split=query.split)
    images, labels = read_mat(path)
    return ImageSet(images, labels % 10, DIGITS, name=query.title)


def load_usps(query: Query) -> ImageSet:
    """USPS from the LIBSVM text files `usps.bz2` and `usps.t.bz2`, or else from `zip.SPLIT.gz` or `usps.h5`."""
    is_train = query.split == "train"
    found = find_other_format(query)
    if found is None:
        found = read_usps(_find(query, "usps.bz2" if is_train else "usps.t.bz2", "USPS", train=is_train))
    images, labels = found
    return ImageSet(images, labels, DIGITS, name=query.title)


def read_mat(path: pathlib.Path) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 in 1..10 of one of SVHN's MATLAB files.

    Raises:
        DataError: The file is truncated or holds something else.
    """
    from scipy import io

    try:
        held: dict[str, Any] = io.loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises nearly anything on damaged input
        raise DataError(f"{path} is truncated or no MATLAB file: {error}") from error
    x, y = held.get("X"), held.get("y")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X is {describe(x)}, expected (32, 32, 3, N) uint8")
    if not isinstance(y, np.ndarray) or y.size != x.shape[3] or y.dtype.kind not in "iuf":
        raise DataError(f"{path}: y is {describe(y)}, expected ({x.shape[3]}, 1) numbers")
    labels = torch.from_numpy(y.reshape(-1).astype(np.int64))
    if len(labels) and (labels.min() < 1 or labels.max() > 10):
        raise DataError(f"{path}: y holds {int(labels.min())}..{int(labels.max())}, expected 1..10")
    return torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))), labels


def read_usps(path: pathlib.Path) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) uint8 and labels (N,) int64 in 0..9 of one of USPS's text files.

    A line is the label, 1 to 10, and 256 pairs `place:value` with values from -1 (black) to 1 (white).

    Raises:
        DataError: The file is truncated or holds something else.
    """
    try:
        lines = bz2.decompress(path.read_bytes()).decode("ascii").split("\n")
        rows = [line.replace(":", " ").split() for line in lines if line.strip()]
        table = np.array(rows, dtype=np.float64)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is truncated or no USPS file: {error}") from error
    if table.ndim != 2 or table.shape[1] != 513 or (table[:, 1::2] != np.arange(1, 257)).any():
        raise DataError(f"{path} holds a table {table.shape}, expected a label and 256 numbered values a line")
    labels, values = torch.from_numpy(table[:, 0] - 1).long(), torch.from_numpy(table[:, 2::2])
    if values.abs().max() > 1:
        raise DataError(f"{path} holds a value of {values.abs().max():g}, expected -1 to 1")
    return ((values + 1) * 127.5).round().to(torch.uint8).view(-1, 1, 16, 16), labels


def _find(query: Query, file: str, torchvision_name: str, **options: Any) -> pathlib.Path:
    own = query.root / query.name
    places = [own / file, query.root / file]
    if query.download and not any(place.is_file() for place in places):
        fetch(query, torchvision_name, **options)
    for place in places:
        if place.is_file():
            return place
    raise query.missing(file, own, can_download=True)
