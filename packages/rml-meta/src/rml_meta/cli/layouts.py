"""Folders of few-shot sets as they are unpacked: class folders at any depth, CSV splits, pickled caches."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable

import torch
from robustvision_core import data
from robustvision_core.data import ImageFiles, ImageSet
from robustvision_core.data.reading.decode import IMAGE_SUFFIXES
from robustvision_core.data.reading.plain_pickle import load_plain
from robustvision_core.data.sources.folder import decode_files
from robustvision_core.errors import DataError

PARTS = ("train", "val", "test")
COLUMNS = (("filename", "label"), ("image_name", "class_name"))
"""Headers of CSV splits, file and class: those of Ravi and Larochelle, and another that is in use."""

CACHE_NAMES = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
NO_CLASSES = ("misc", "outliers")
"""Folders of SUN that are beside its scenes."""


def has_splits(folder: pathlib.Path) -> bool:
    """Whether the folder comes with base and novel classes of its own, in any of the layouts."""
    return (folder / "train").is_dir() or (folder / "train.csv").is_file() or cache_of(folder, "train") is not None


def read_part(folder: pathlib.Path, part: str, size: int) -> ImageSet | None:
    """One part (train, val or test) of a folder, or None where it has no such part.

    In this order: pickled caches (`mini-imagenet-cache-train.pkl`), CSV splits (`train.csv` with the images in the
    folder or in its folder `images`), and folders `train`, `val` and `test` of classes. A folder without any of them
    is one part, train.

    Raises:
        DataError: There is no such folder, or it holds no images; a file is missing or damaged.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}: expected class folders, folders train, val and test of them, train.csv with "
            "images, or mini-imagenet-cache-train.pkl"
        )
    if (cache := cache_of(folder, part)) is not None:
        return data.resize(read_cache(cache), size)
    if (table := folder / f"{part}.csv").is_file():
        return decode_files(csv_files(table), size, grey=False, max_gib=None)
    if has_splits(folder):
        folder = folder / part
        if not folder.is_dir():
            return None
    elif part != "train":
        return None
    return decode_files(class_folders(folder), size, grey=False, max_gib=None)


def class_folders(folder: pathlib.Path) -> ImageFiles:
    """The images of a folder of classes, sorted by class and name.

    Classes are its subfolders; where these hold no image themselves, as the letters of SUN, the folders below that do
    (`a/airport/entrance` is `airport/entrance`).

    Raises:
        DataError: It holds no images in subfolders.
    """
    tops = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {
        top: [f for f in sorted(top.rglob("*")) if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()] for top in tops
    }
    nested = not any(file.parent == top for top, found in files.items() for file in found)
    if nested:
        letters = all(len(top.name) == 1 or top.name in NO_CLASSES for top in tops)
        kept = [top for top in tops if not (letters and top.name in NO_CLASSES)]
        pairs = [(file, _name(file.parent.relative_to(folder), letters)) for top in kept for file in files[top]]
    else:
        pairs = [(file, top.name) for top in tops for file in files[top]]
    if not pairs:
        raise DataError(f"{folder} holds no images: expected {folder}/<class>/<image> ({', '.join(IMAGE_SUFFIXES)})")
    return _numbered(pairs, str(folder))


def _name(path: pathlib.PurePath, letters: bool) -> str:
    return "/".join(path.parts[1:] if letters else path.parts)


def _numbered(pairs: Iterable[tuple[pathlib.Path, str]], name: str) -> ImageFiles:
    """Image files with their classes, these numbered by name."""
    pairs = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    classes = sorted({label for _, label in pairs})
    number = {label: k for k, label in enumerate(classes)}
    labels = torch.tensor([number[label] for _, label in pairs])
    return ImageFiles(tuple(file for file, _ in pairs), labels, tuple(classes), name)


def csv_files(table: pathlib.Path) -> ImageFiles:
    """The images of a CSV split.

    Raises:
        DataError: The header or a row is none, or an image is missing.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            header = tuple(rows.fieldnames or ())
            columns = next((pair for pair in COLUMNS if set(pair) <= set(header)), None)
            if columns is None:
                expected = " or ".join(",".join(pair) for pair in COLUMNS)
                raise DataError(f"{table} begins with {','.join(header)!r}: expected columns {expected}")
            read = [(row[columns[0]], row[columns[1]]) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is no CSV in UTF-8: {error}") from error
    if not read:
        raise DataError(f"{table} lists no images")
    return _numbered([(_find(table, file, label), label) for file, label in read], str(table))


def _find(table: pathlib.Path, file: str | None, label: str | None) -> pathlib.Path:
    if not file or not label:
        raise DataError(f"{table} has a row without a file or class: {file!r}, {label!r}")
    top = table.parent
    places = [top / "images" / file, top / file, top / "images" / label / file, top / label / file]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{table} names {file}, which is in none of {', '.join(str(p.parent) for p in places)}")


def cache_of(folder: pathlib.Path, part: str) -> pathlib.Path | None:
    """The pickled cache of one part, None where there is none."""
    names = [f"*cache-{name}.pkl" for name in CACHE_NAMES[part]]
    return next((path for name in names for path in sorted(folder.glob(name))), None)


def read_cache(path: pathlib.Path) -> ImageSet:
    """A pickle of `image_data` (N, H, W, 3) bytes and `class_dict`, class to rows; nothing in it is executed.

    Raises:
        DataError: It holds anything else, or is damaged.
    """
    held = load_plain(path.read_bytes(), str(path))
    images, rows = (_entry(held, name) for name in ("image_data", "class_dict"))
    if not (isinstance(images, torch.Tensor) and images.dim() == 4 and images.shape[-1] in (1, 3)):
        raise DataError(f"{path} is no cache of images: expected image_data (N, H, W, 3) of bytes")
    if not isinstance(rows, dict) or not rows:
        raise DataError(f"{path} is no cache of images: expected class_dict, a dict of class to rows")
    labels = torch.full((len(images),), -1)
    named = sorted((_text(name), of_class) for name, of_class in rows.items())
    for number, (name, of_class) in enumerate(named):
        if not (isinstance(of_class, (list, tuple)) and all(type(k) is int and 0 <= k < len(images) for k in of_class)):
            raise DataError(f"{path}: rows of class {name!r} are not numbers from 0 to {len(images) - 1}")
        labels[list(of_class)] = number
    kept = labels >= 0
    return ImageSet(
        images.permute(0, 3, 1, 2)[kept].contiguous(), labels[kept], tuple(n for n, _ in named), name=str(path)
    )


def _entry(held: object, name: str) -> object:
    """A value by its name, which Python 2 wrote as bytes."""
    return held.get(name, held.get(name.encode())) if isinstance(held, dict) else None


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
