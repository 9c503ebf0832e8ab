"""A labelled image set: pixels in memory, or in a file that the system maps there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustvision_core.data.storage import is_mapped, take_rows
from robustvision_core.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, labels and where each sample came from, all on one device.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in `[0, len(classes))`.
        classes: Name of each class.
        ids: (N,) int64, the identity of each sample in its source: it stays with the sample through splits and
            subsets, so that files indexed by the source's order (noisy labels, ablations) still apply. Default
            `arange(N)`.
        name: What to call the set in messages.
        extras: Further tensors (N, ...) with one row a sample, by name, as the true `angle` of drawn sprites.

    Raises:
        DataError: A tensor has the wrong type, shape or length, or a label names no class.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: Tensor = None  # type: ignore[assignment]  # filled in __post_init__, so that readers always see a tensor
    name: str = "images"
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise DataError(f"{self.name}: images must be (N, C, H, W) uint8, got {describe(self.images)}")
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(len(self.images), device=self.images.device))
        for key in ("labels", "ids"):
            _check_vector(self.name, key, getattr(self, key), self.images)
        for key, value in self.extras.items():
            _check_rows(self.name, key, value, self.images)
        _check_range(self.name, self.labels, self.classes)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes there are, those without a sample included."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.images.device

    def take(self, indices: Tensor | Sequence[int]) -> ImageSet:
        """The samples at `indices` (M,), in that order, with their ids; a (N,) bool mask also works."""
        chosen = positions(indices, self.device)
        images = take_rows(self.images, chosen)
        extras = {key: value[chosen] for key, value in self.extras.items()}
        return replace(self, images=images, labels=self.labels[chosen], ids=self.ids[chosen], extras=extras)

    def with_labels(self, labels: Tensor) -> ImageSet:
        """The same samples under other labels, (N,) int64."""
        return replace(self, labels=labels)

    def to(self, device: str | torch.device) -> ImageSet:
        """The set on another device."""
        images, labels, ids = (value.to(device) for value in (self.images, self.labels, self.ids))
        extras = {key: value.to(device) for key, value in self.extras.items()}
        return replace(self, images=images, labels=labels, ids=ids, extras=extras)

    @property
    def is_mapped(self) -> bool:
        """Whether the pixels are in a file, being too many for memory."""
        return is_mapped(self.images)

    def class_counts(self) -> Tensor:
        """(num_classes,) int64: how many samples each class has."""
        return torch.bincount(self.labels, minlength=self.num_classes)


def positions(indices: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """Positions (M,) int64 on `device`, from numbers or from a bool mask (N,)."""
    chosen = torch.as_tensor(indices, device=device)
    if chosen.dtype == torch.bool:
        chosen = chosen.nonzero()[:, 0]
    return chosen.long()  # an empty list comes as float


def describe(value: object) -> str:
    """Shape and type of a tensor or array in words, for error messages."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"  # type: ignore[attr-defined]


def _check_vector(name: str, field: str, value: Tensor, images: Tensor) -> None:
    if value.dtype != torch.int64 or value.dim() != 1:
        raise DataError(f"{name}: {field} must be (N,) int64, got {describe(value)}")
    _check_rows(name, field, value, images)


def _check_rows(name: str, field: str, value: Tensor, images: Tensor) -> None:
    if value.dim() == 0 or len(value) != len(images):
        raise DataError(f"{name}: {len(images)} images but {len(value) if value.dim() else 'a single'} {field}")
    if value.device != images.device:
        raise DataError(f"{name}: images are on {images.device} but {field} on {value.device}")


def _check_range(name: str, labels: Tensor, classes: Sequence[str]) -> None:
    if len(labels) == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise DataError(f"{name}: label {wrong} names no class, {len(classes)} classes need 0..{len(classes) - 1}")
