"""Which files hold a split: one file, a pattern of shards, or a folder of files named after the splits."""

from __future__ import annotations

import glob
import itertools
import pathlib
import re
from collections.abc import Iterator

from robustvision_core.data.reading.named_labels import SPLIT_NAMES, check_split
from robustvision_core.errors import DataError


def part_files(path: str, suffix: str) -> dict[str, list[pathlib.Path]]:
    """The files of every split that is there, sorted.

    In a folder these are the files whose names begin with that of a split, as `train-00000-of-00002.parquet`, or all
    files, as `train`, where none does. A file or pattern with `train` in its name is the training set, and others with
    `val` or `test` in its place are the other splits; any other file or pattern is `train`. Patterns know `*`, `?`,
    `{000..013}` and `{a,b}`.

    Args:
        path: File, pattern or folder.
        suffix: Of the files in a folder, as `.tar`.

    Raises:
        DataError: There are none.
    """
    if pathlib.Path(path).is_dir():
        held = sorted(pathlib.Path(path).rglob(f"*{suffix}"))
        named = {split: [f for f in held if _begins(f.name, split)] for split in SPLIT_NAMES}
        found = named if any(named.values()) else {"train": held}
    else:
        found = {split: expanded(other) for split, other in _beside(path)}
    found = {split: files for split, files in found.items() if files}
    if not found:
        raise DataError(f"{path}: expected a file or pattern of files there, or a folder with *{suffix}; found none")
    return found


def files_of(path: str, suffix: str, split: str) -> list[pathlib.Path]:
    """The files of one split; see `part_files`.

    Raises:
        MissingSplitError: There are files, but none of this split.
    """
    found = part_files(path, suffix)
    check_split(split, found, path, f"name files of it {split}*{suffix}")
    return found[split]


def expanded(pattern: str) -> list[pathlib.Path]:
    """The files that a pattern names, those in braces in their order."""
    return [pathlib.Path(found) for one in _braces(pattern) for found in sorted(glob.glob(one)) or _itself(one)]


def _itself(name: str) -> list[str]:
    return [name] if pathlib.Path(name).is_file() else []  # a name with brackets is no pattern of its own


def _begins(name: str, split: str) -> bool:
    return re.match(rf"({'|'.join(SPLIT_NAMES[split])})(?![a-z])", name.lower()) is not None


def _beside(path: str) -> Iterator[tuple[str, str]]:
    folder, slash, name = path.rpartition("/")
    if "train" not in name:
        yield "train", path
        return
    for split, names in SPLIT_NAMES.items():
        for other in names:
            renamed = folder + slash + name.replace("train", other)
            if other == "train" or (other != "training" and expanded(renamed)):
                yield split, renamed
                break


def _braces(pattern: str) -> list[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        low, high = span.groups()
        inner = [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
    else:
        inner = found[1].split(",")
    heads = (pattern[: found.start()] + one for one in inner)
    return list(itertools.chain.from_iterable(_braces(head + pattern[found.end() :]) for head in heads))
