"""Tiny ImageNet, whole or as a few-shot set."""

from __future__ import annotations

import csv
import io
import pathlib
import re
from dataclasses import dataclass

import torch

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.reading.decode import decode_all
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError

FOLDER = "tiny-imagenet-200"
SPLIT_FILE = "miniimagenet_split.csv"


@dataclass(frozen=True)
class _Tree:
    """The files of the set by their path below its top folder, and what holds them."""

    files: dict[str, pathlib.Path | bytes]
    holder: str

    def text(self, path: str) -> str:
        if path not in self.files:
            raise DataError(f"{self.holder} has no {path}")
        held = self.files[path]
        return (held if isinstance(held, bytes) else held.read_bytes()).decode("utf-8", "replace")

    def rows(self, path: str) -> list[list[str]]:
        return [line.split("\t") for line in self.text(path).splitlines() if line.strip()]


def load_tiny_imagenet(query: Query, size: int = 64) -> ImageSet:
    """Tiny ImageNet from its folder `tiny-imagenet-200` or a `tiny-imagenet*.zip` of it.

    Classes are those of `wnids.txt`, in its order, under their first name in `words.txt`.

    Args:
        query: `test` is the official validation part, as the official test part has no labels.
        size: Height and width to resize to.
    """
    tree = _open(query, "val" if query.split == "train" else "train")
    wnids = [row[0] for row in tree.rows("wnids.txt")]
    samples = _train(tree, wnids) if query.split == "train" else _val(tree, wnids)
    return _decode(tree, samples, wnids, size, query.title)


def load_few_shot(query: Query, size: int = 64) -> ImageSet:
    """Tiny ImageNet's classes that miniImageNet shares, in miniImageNet's split: no class is in two splits.

    All labelled images of a class are used, those of Tiny ImageNet's training part first. The split is read from
    `miniimagenet_split.csv` beside `wnids.txt`, with columns `wnid` and `miniimagenet_split`.

    Args:
        query: Its `split` is `train`, `val` or `test`.
        size: Height and width to resize to.
    """
    tree = _open(query)
    table = list(csv.DictReader(io.StringIO(tree.text(SPLIT_FILE))))
    if not table or not {"wnid", "miniimagenet_split"} <= table[0].keys():
        raise DataError(f"{tree.holder}: {SPLIT_FILE} lacks the columns wnid and miniimagenet_split")
    wnids = [row["wnid"] for row in table if row["miniimagenet_split"] == query.split]
    return _decode(tree, _train(tree, wnids) + _val(tree, wnids), wnids, size, query.title)


def _open(query: Query, without: str = "") -> _Tree:
    """The set's files, but for the unlabelled test part and the part called `without`."""
    skipped = re.compile(rf"{FOLDER}/(test|{without or 'test'})/")
    for place in (query.root / "tiny-imagenet", query.root):
        if (place / FOLDER).is_dir():
            top = place / FOLDER
            return _Tree({path.relative_to(top).as_posix(): path for path in top.rglob("*.*")}, str(top))
        if archives := sorted(place.glob("tiny-imagenet*.zip")):
            archive = archives[0]
            members = read_members(archive, lambda name: name.startswith(f"{FOLDER}/") and not skipped.match(name))
            return _Tree({name.removeprefix(f"{FOLDER}/"): raw for name, raw in members.items()}, str(archive))
    raise query.missing(f"{FOLDER}/ or tiny-imagenet*.zip", query.root / "tiny-imagenet")


def _train(tree: _Tree, wnids: list[str]) -> list[tuple[str, int]]:
    """(path, label) of every training image, by class and number."""
    number = {wnid: label for label, wnid in enumerate(wnids)}
    found = []
    for path in tree.files:
        match = re.fullmatch(r"train/(n\d+)/images/\w+_(\d+)\.JPEG", path)
        if match and match[1] in number:
            found.append((number[match[1]], int(match[2]), path))
    return [(path, label) for label, _, path in sorted(found)]


def _val(tree: _Tree, wnids: list[str]) -> list[tuple[str, int]]:
    """(path, label) of every validation image, in the order of its list."""
    number = {wnid: label for label, wnid in enumerate(wnids)}
    rows = tree.rows("val/val_annotations.txt")
    return [(f"val/images/{row[0]}", number[row[1]]) for row in rows if len(row) > 1 and row[1] in number]


def _decode(tree: _Tree, samples: list[tuple[str, int]], wnids: list[str], size: int, title: str) -> ImageSet:
    if not samples:
        raise DataError(f"{tree.holder} holds no images for {title}")
    if absent := next((path for path, _ in samples if path not in tree.files), None):
        raise DataError(f"{tree.holder} has no {absent}")
    words = {row[0]: row[1].split(",")[0] for row in tree.rows("words.txt") if len(row) > 1}
    sources = [tree.files[path] for path, _ in samples]
    names = [f"{tree.holder}: {path}" for path, _ in samples]
    images = decode_all(sources, names, tree.holder, grey=False, size=size)
    labels = torch.tensor([label for _, label in samples])
    return ImageSet(images, labels, tuple(words.get(wnid, wnid) for wnid in wnids), name=title)
