"""From labels as a table has them to numbers, and from the names of parts to ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from robustvision_core.errors import DataError, MissingSplitError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What others call our splits."""


SPLIT_COLUMNS = ("split", "subset", "partition")
"""What others call the column that says the split."""


def split_called(name: str) -> str:
    """Our name of a split."""
    low = name.strip().lower()
    return next((ours for ours, theirs in SPLIT_NAMES.items() if low in theirs), low)


def check_split(split: str, there: Collection[str], where: str, hint: str) -> None:
    """Raise MissingSplitError where `split` is not among those that are there; `hint` says how to make one."""
    if split not in there:
        raise MissingSplitError(f"{where} has no {split} images, but {', '.join(sorted(there)) or 'none'}: {hint}")


def class_names(labels: Collection[str]) -> tuple[str, ...]:
    """The different labels in order: of numbers by value, of others by name."""
    found = set(labels)
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label), label) if numbers else (0, label)))


def choose_classes(
    own: Collection[str], train: Collection[str], known: Sequence[str] | None, own_classes: bool
) -> tuple[str, ...]:
    """The classes of a split: those of the training images, so that every split numbers them alike.

    Args:
        own: Labels of the split.
        train: Labels of the training images; none where there are no such.
        known: Names of all classes, where a file lists them.
        own_classes: Only those that the split has, as few-shot sets are split.
    """
    if own_classes:
        return tuple(name for name in known if name in set(own)) if known else class_names(own)
    return tuple(known) if known else class_names(train or own)


def numbered(labels: Sequence[str], classes: Sequence[str], where: Callable[[int], str]) -> Tensor:
    """(N,) int64: the place of each label in `classes`.

    Args:
        labels: Of the N images.
        classes: Name of each class.
        where: Says where label number n stands, for the error.

    Raises:
        DataError: A label is not among the classes.
    """
    place = {name: number for number, name in enumerate(classes)}
    numbers = [place.get(label, -1) for label in labels]
    if -1 in numbers:
        row = numbers.index(-1)
        raise DataError(f"{where(row)} has the label {labels[row]!r}, which no training image has")
    return torch.tensor(numbers, dtype=torch.int64)
