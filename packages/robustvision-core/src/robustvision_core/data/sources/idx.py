"""MNIST and the sets that share its file format (IDX)."""

from __future__ import annotations

import math
import pathlib

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.limits import unpacked
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.download import fetch
from robustvision_core.errors import DataError

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def load_mnist(query: Query) -> ImageSet:
    """MNIST from its four IDX files."""
    return _load(query, "MNIST", DIGITS)


def load_fashion_mnist(query: Query) -> ImageSet:
    """Fashion-MNIST from its four IDX files."""
    return _load(query, "FashionMNIST", CLOTHES)


def load_kmnist(query: Query) -> ImageSet:
    """Kuzushiji-MNIST from its four IDX files."""
    return _load(query, "KMNIST", KANA)


def read_idx(path: pathlib.Path) -> Tensor:
    """The array of an IDX file of unsigned bytes, plain or `.gz`, as a uint8 tensor of its shape.

    The format: two zero bytes, the element type (8 for unsigned bytes), the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements in row-major order.

    Raises:
        DataError: The file is truncated, too long, or no IDX file of unsigned bytes.
    """
    raw = bytearray(unpacked(path))
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 4:
        raise DataError(f"{path} starts with {raw[:4].hex(' ') or 'nothing'}: expected an IDX file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + math.prod(shape)
    if len(raw) != expected:
        state = "truncated" if len(raw) < expected else "too long"
        raise DataError(f"{path} is {state}: {len(raw)} bytes, its header {tuple(shape)} asks for {expected}")
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(raw, dtype=torch.uint8, offset=start).reshape(shape)


def _load(query: Query, folder: str, classes: tuple[str, ...]) -> ImageSet:
    prefix = "train" if query.split == "train" else "t10k"
    paths = [_find(query, folder, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path) for path in paths)
    if images.dim() != 3:
        raise DataError(f"{paths[0]} holds {images.dim()} dimensions {tuple(images.shape)}: expected (N, H, W)")
    if labels.dim() != 1 or len(labels) != len(images):
        raise DataError(f"{paths[1]} holds labels {tuple(labels.shape)} for {len(images)} images in {paths[0].name}")
    return ImageSet(images[:, None], labels.long(), classes, name=query.title)


def _find(query: Query, folder: str, file: str) -> pathlib.Path:
    """The path of `file` or `file.gz` in any of the usual layouts, after a download if that was asked for."""
    own = query.root / query.name
    places = [own / folder / "raw", query.root / folder / "raw", own / "raw", own]
    candidates = [place / name for place in places for name in (file, f"{file}.gz")]
    if query.download and not any(path.is_file() for path in candidates):
        fetch(query, folder)
    for path in candidates:
        if path.is_file():
            return path
    raise query.missing(f"{file}[.gz]", places[0], can_download=True)
