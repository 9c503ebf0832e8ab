"""Pairs of image sets that show the same classes in two domains."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace

import torch

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError

PARTS = ("source_train", "source_val", "source_test", "target_train", "target_val", "target_test")


@dataclass(frozen=True, eq=False)
class DomainPair:
    """A labelled source and a target that is to be learned without, or with few, labels.

    All parts number the classes alike and have images of one shape. The labels of `target_train` are there to measure
    pseudo-labels and for `split_labelled`; a method without target labels must not see them, nor choose by
    `target_val` or `target_test`.

    Attributes:
        source_train: To train on.
        source_val: To choose by.
        source_test: To report on.
        target_train: To adapt on.
        target_val: To choose by, where a method is allowed target labels.
        target_test: To report on.
        name: What to call the pair in messages.
        target_labelled: Whether the target's labels are known; if not, those of `target_train` are zeros that mean
            nothing, and the other parts of the target are empty.
        target_files: The files that the ids of the target's parts count, or none where there are none.

    Raises:
        DataError: The classes or shapes of two parts differ.
    """

    source_train: ImageSet
    source_val: ImageSet
    source_test: ImageSet
    target_train: ImageSet
    target_val: ImageSet
    target_test: ImageSet
    name: str = "domains"
    target_labelled: bool = True
    target_files: tuple[pathlib.Path, ...] = ()

    def __post_init__(self) -> None:
        for key, part in self.parts().items():
            if part.shape != self.source_train.shape:
                raise DataError(
                    f"{self.name}: {key} has images of {part.shape}, source_train of {self.source_train.shape}"
                )
            same = align_classes(part, self.source_train.classes, self.name)
            object.__setattr__(self, key, replace(same, name=f"{self.name}/{key}"))

    def parts(self) -> dict[str, ImageSet]:
        """The six sets by their names."""
        return {name: getattr(self, name) for name in PARTS}

    def to(self, device: str | torch.device) -> DomainPair:
        """The pair on another device."""
        return replace(self, **{key: part.to(device) for key, part in self.parts().items()})


def align_classes(data: ImageSet, classes: tuple[str, ...], about: str) -> ImageSet:
    """`data` with its classes numbered as in `classes`: they are matched by name, never by number.

    Raises:
        DataError: The names are not the same; the message lists those that only one has.
    """
    if data.classes == classes:
        return data
    ours, theirs = set(classes), set(data.classes)
    if ours != theirs or len(data.classes) != len(classes):
        raise DataError(
            f"{about}: the classes of source and target differ: only in the source {_listed(ours - theirs)}, only in "
            f"the target {_listed(theirs - ours)}: rename or remove their folders, or choose with select_classes"
        )
    place = torch.tensor([classes.index(name) for name in data.classes], device=data.device)
    return replace(data, labels=place[data.labels], classes=classes)


def _listed(names: set[str], most: int = 10) -> str:
    shown = ", ".join(sorted(names)[:most]) or "none"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
