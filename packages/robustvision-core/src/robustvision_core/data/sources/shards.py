"""Tar shards in the layout of WebDataset: `0001.jpg` beside `0001.cls`, `0001.txt` or `0001.json`."""

from __future__ import annotations

import functools
import json
import pathlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from robustvision_core.data.reading.decode import IMAGE_SUFFIXES
from robustvision_core.data.reading.image_files import ImageFiles
from robustvision_core.data.reading.named_labels import choose_classes, numbered
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.folder import decoding
from robustvision_core.data.sources.parts import files_of, part_files
from robustvision_core.errors import DataError

LABELS = ("cls", "label", "txt", "json")
"""What holds a sample's label, in this order."""

JSON_KEYS = ("label", "class", "class_name", "category", "target")
LONGEST = 2**16  # bytes of a member with a label


@dataclass(frozen=True)
class TarImage:
    """An image in an uncompressed tar file."""

    shard: pathlib.Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """What the file holds; any number of threads and processes may read."""
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"


def list_webdataset(query: Query, own_classes: bool = False) -> ImageFiles:
    """The images of tar shards.

    `webdataset:PATH` is a shard, a pattern as `shards/train-{000..009}.tar`, or a folder of shards; see
    `robustvision_core.data.sources.parts.part_files`. Samples are files with one name up to the first dot: an image,
    and its label in `.cls`, `.label` or `.txt`, or as `label` or `class` of a `.json`. Shards are read in place and in
    any order, so they must not be compressed; every machine must see them all.

    Raises:
        DataError: A shard is missing or no tar file, or a sample has no image or no label; the message names both.
    """
    shards = files_of(query.place, ".tar", query.split)
    samples = [sample for shard in shards for sample in read_shard(shard)]
    labels = [label for _, label in samples]
    train = part_files(query.place, ".tar").get("train", shards)
    known = labels if train == shards else [label for shard in train for _, label in read_shard(shard)]
    classes = choose_classes(labels, known, None, own_classes)
    images = tuple(image for image, _ in samples)
    if not images:
        raise DataError(f"{query.place}: {shards[0]} holds no samples: expected an image and .cls under one name")
    number = numbered(labels, classes, lambda row: str(images[row]))
    return ImageFiles(images, number, classes, f"{query.place}/{query.split}")


load_webdataset = decoding(list_webdataset)


def read_shard(shard: pathlib.Path) -> tuple[tuple[TarImage, str], ...]:
    """The samples of a shard with their labels; they are remembered, for every split asks for those of `train`."""
    return _scanned(shard, shard.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _scanned(shard: pathlib.Path, stamp: int) -> tuple[tuple[TarImage, str], ...]:
    """The samples of a shard as it was written at a time."""
    samples: dict[str, dict[str, TarImage]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                parts = re.fullmatch(r"((?:.*/|)[^./][^./]*)\.([^/]+)", member.name)
                if parts and member.isfile():
                    image = TarImage(shard, member.name, member.offset_data, member.size)
                    samples.setdefault(parts[1], {})[parts[2].lower()] = image
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{shard} cannot be read as an uncompressed tar file: {error}") from error
    return tuple(_sample(shard, name, parts) for name, parts in samples.items())


def _sample(shard: pathlib.Path, name: str, parts: dict[str, TarImage]) -> tuple[TarImage, str]:
    images = [part for kind, part in parts.items() if f".{kind.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    held = next((part for kind in LABELS if (part := parts.get(kind))), None)
    label = _label(held) if held else ""
    if not images or not label:
        lacks = "image" if not images else f"label ({', '.join('.' + kind for kind in LABELS)})"
        raise DataError(f"{shard}: sample {name} has no {lacks}, but {', '.join('.' + kind for kind in parts)}")
    return images[0], label


def _label(part: TarImage) -> str:
    if part.size > LONGEST:
        raise DataError(f"{part} has {part.size:,} bytes, which is no label")
    text = part.read_bytes().decode("utf-8", "replace").strip()
    if not part.name.lower().endswith(".json"):
        return text
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{part} is no JSON: {error}") from None
    found: Sequence[object] = [held[key] for key in JSON_KEYS if key in held] if isinstance(held, dict) else [held]
    return str(found[0]) if found and isinstance(found[0], str | int) else ""
