"""CIFAR-10 and CIFAR-100 from any of their official files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet, describe
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.reading.plain_pickle import load_plain
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.download import fetch
from robustvision_core.data.sources.npz import read_npz
from robustvision_core.errors import DataError

PIXELS = 3 * 32 * 32
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Release:
    """One official form of a data set: a folder, or the archive of it."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    read: Callable[[bytes, str, Any], tuple[Tensor, Tensor]]
    label: Any  # key of the labels in the pickles; place of the label byte in the binary records


def load_cifar10(query: Query) -> ImageSet:
    """CIFAR-10 from the official python or binary files, packed or not, or from `cifar10.npz`.

    The order is that of the official files. In `cifar10.npz`: `x_train` (50000, 32, 32, 3) uint8, `y_train`,
    `x_test`, `y_test` and optionally `classes`.
    """
    batches = tuple(f"data_batch_{i}" for i in range(1, 6))
    python = _Release(
        "cifar-10-batches-py", "cifar-10-python.tar.gz", batches, ("test_batch",), "batches.meta", _python, b"labels"
    )
    binary = _Release(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"{name}.bin" for name in batches),
        ("test_batch.bin",),
        "batches.meta.txt",
        _binary,
        (1, 0),
    )
    return _load(query, [python, binary], "CIFAR10", 10, b"label_names", "cifar10.npz")


def load_cifar100(query: Query, coarse: bool = False) -> ImageSet:
    """CIFAR-100 from the official python or binary files, packed or not; `coarse` takes the 20 superclasses."""
    level = "coarse" if coarse else "fine"
    python = _Release(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        ("test",),
        "meta",
        _python,
        f"{level}_labels".encode(),
    )
    binary = _Release(
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        ("train.bin",),
        ("test.bin",),
        f"{level}_label_names.txt",
        _binary,
        (2, 0 if coarse else 1),
    )
    return _load(query, [python, binary], "CIFAR100", 20 if coarse else 100, f"{level}_label_names".encode())


def _load(
    query: Query, releases: Sequence[_Release], torchvision_name: str, classes: int, key: bytes, npz: str = ""
) -> ImageSet:
    own = query.root / query.name
    for _ in range(2):
        for place in (own, query.root):
            if npz and (place / npz).is_file():
                return read_npz(place / npz, query.split)
            for release in releases:
                if (found := _open(place, release, query.split)) is not None:
                    return _assemble(query, release, *found, classes, key)
        if not query.download:
            break
        fetch(query, torchvision_name)
    raise query.missing(f"{releases[0].folder}, {releases[0].archive}, {npz or releases[1].archive}", own, True)


def _open(place: pathlib.Path, release: _Release, split: str) -> tuple[dict[str, bytes], str] | None:
    """The bytes of a split's files and of the class names by file name, and what holds them; None where absent."""
    wanted = (*getattr(release, split), release.names)
    folder, archive = place / release.folder, place / release.archive
    if folder.is_dir():
        present = [folder / name for name in wanted if (folder / name).is_file()]
        return {path.name: path.read_bytes() for path in present}, str(folder)
    if archive.is_file():
        members = read_members(archive, lambda name: name.rsplit("/", 1)[-1] in wanted)
        return {name.rsplit("/", 1)[-1]: raw for name, raw in members.items()}, str(archive)
    return None


def _assemble(
    query: Query, release: _Release, files: dict[str, bytes], holder: str, classes: int, key: bytes
) -> ImageSet:
    wanted: tuple[str, ...] = getattr(release, query.split)
    if missing := [name for name in wanted if name not in files]:
        raise DataError(f"{query.name}: {holder} has no {missing[0]}: unpack or download it again")
    parts = [release.read(files[name], f"{holder}: {name}", release.label) for name in wanted]
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    names = _class_names(files.get(release.names), f"{holder}: {release.names}", key)
    if names is None:
        names = CIFAR10 if classes == 10 else tuple(map(str, range(classes)))
    if len(names) != classes:
        raise DataError(f"{holder}: {release.names} names {len(names)} classes, expected {classes}")
    return ImageSet(images.view(-1, 3, 32, 32), labels, names, name=query.title)


def _python(raw: bytes, name: str, key: bytes) -> tuple[Tensor, Tensor]:
    """Images (N, 3072) and labels (N,) of one pickled batch."""
    batch = _Fields(load_plain(raw, name), name)
    images, labels = batch[b"data"], batch[key]
    if not isinstance(images, Tensor) or images.dim() != 2 or images.shape[1] != PIXELS:
        raise DataError(f"{name}: data is {describe(images)}, expected (N, {PIXELS}) uint8")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise DataError(f"{name}: {key.decode()} is {describe(labels)}, expected a list of integers")
    if len(labels) != len(images):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
    return images, torch.tensor(labels, dtype=torch.int64)


def _binary(raw: bytes, name: str, label: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images (N, 3072) and labels (N,) of records of label bytes and pixels; `label`: how many, and which."""
    heads, which = label
    record = heads + PIXELS
    if len(raw) == 0 or len(raw) % record:
        raise DataError(f"{name} is truncated: {len(raw)} bytes, expected a multiple of {record}")
    rows = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, record)
    return rows[:, heads:].contiguous(), rows[:, which].long()


def _class_names(raw: bytes | None, name: str, key: bytes) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if name.endswith(".txt"):
        return tuple(raw.decode("utf-8", "replace").split())
    names = _Fields(load_plain(raw, name), name)[key]
    if not isinstance(names, list):
        raise DataError(f"{name}: {key.decode()} is {describe(names)}, expected a list")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


class _Fields:
    """A pickled dict, whose keys are bytes when Python 2 wrote it and may be strings when Python 3 did."""

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"{name} holds {describe(value)}, expected a dict")
        self.value, self.name = value, name

    def __getitem__(self, key: bytes) -> Any:
        for spelling in (key, key.decode()):
            if spelling in self.value:
                return self.value[spelling]
        raise DataError(f"{self.name} has no {key.decode()}: found {', '.join(map(repr, self.value))}")
