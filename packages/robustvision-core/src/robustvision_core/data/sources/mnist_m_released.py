"""MNIST-M as its authors released it."""

from __future__ import annotations

import pathlib

import torch

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.reading.decode import decode_all
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError

FOLDER, ARCHIVE = "mnist_m", "mnist_m.tar.gz"
PREFIX = f"{FOLDER}/"  # of every member


def load_mnist_m_released(query: Query, size: int = 32) -> ImageSet:
    """The images of `mnist_m_<split>/` in the order of `mnist_m_<split>_labels.txt`, whose lines are `file label`.

    Read from the folder `mnist_m` or the archive `mnist_m.tar.gz`, in `<root>/mnist-m` or `<root>`. Ids are places
    in the list: which digit of MNIST an image shows is not recorded.

    Args:
        query: Its `split` is `train` or `test`.
        size: Height and width to resize to.

    Raises:
        DataError: Files are missing or broken, or a line of the list is none.
    """
    if not 1 <= size <= 512:
        raise DataError(f"{query.name}: size is {size}, expected 1 to 512 pixels")
    files, holder = _files(query)
    listed = f"mnist_m_{query.split}_labels.txt"
    if listed not in files:
        raise DataError(f"{holder} has no {listed}")
    rows = _rows(files[listed], f"{holder}: {listed}")
    paths = [f"mnist_m_{query.split}/{name}" for name, _ in rows]
    if absent := next((path for path in paths if path not in files), None):
        raise DataError(f"{holder} has no {absent}, which {listed} lists")
    names = [f"{holder}: {path}" for path in paths]
    images = decode_all([files[path] for path in paths], names, holder, grey=False, size=size)
    return ImageSet(images, torch.tensor([label for _, label in rows]), tuple("0123456789"), name=query.title)


def _rows(file: pathlib.Path | bytes, name: str) -> list[tuple[str, int]]:
    text = (file if isinstance(file, bytes) else file.read_bytes()).decode("utf-8", "replace")
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if parts and (len(parts) != 2 or len(parts[1]) != 1 or parts[1] not in "0123456789"):
            raise DataError(f"{name}, line {number} is {line!r}, expected a file name and a digit")
        if parts:
            rows.append((parts[0], int(parts[1])))
    return rows


def _files(query: Query) -> tuple[dict[str, pathlib.Path | bytes], str]:
    """Every file of the split by its path below the top folder, and what holds them."""
    wanted = (f"mnist_m_{query.split}/", f"mnist_m_{query.split}_labels.txt")
    for place in (query.root / "mnist-m", query.root):
        top = place / FOLDER
        if top.is_dir():
            found = {path.relative_to(top).as_posix(): path for path in top.rglob("*.*")}
            return {name: path for name, path in found.items() if name.startswith(wanted)}, str(top)
        if (place / ARCHIVE).is_file():
            raw = read_members(place / ARCHIVE, lambda name: name.removeprefix(PREFIX).startswith(wanted))
            return {name.removeprefix(PREFIX): held for name, held in raw.items()}, str(place / ARCHIVE)
    raise query.missing(f"{FOLDER}/ or {ARCHIVE}", query.root / "mnist-m")
