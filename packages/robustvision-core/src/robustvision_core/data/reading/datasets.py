"""Datasets of torch, torchvision and others that give (image, label), read into memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.decode import decode_image
from robustvision_core.data.storage import MAX_GIB
from robustvision_core.errors import DataError

IMAGE_KEYS = ("image", "img", "images", "x")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "y")
"""What datasets that give dicts call the two, tried in this order."""


def from_dataset(dataset: Dataset[Any], name: str = "", max_gib: float = MAX_GIB) -> ImageSet:
    """A map-style dataset as an image set in memory.

    Images are those that the dataset gives when it is read, once: leave out its augmentation and normalisation.
    Classes are the labels that occur, in order, whatever numbers they are; those of `dataset.classes` give their names.

    Args:
        dataset: Has a length, and item i is (image, label, ...) or a dict with keys `image` and `label`. Images are PIL
            images, arrays (H, W[, C]), or tensors ([C,] H, W), uint8 or floating-point in [0, 1], of one size; grey
            ones are repeated where others are coloured. Labels are integers of any type, or class names.
        name: What to call it in messages; by default its type.
        max_gib: The most memory that the images may take.

    Raises:
        DataError: It has no length, is empty, too large, or an item is none of these; the message says which.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.rand(6, 3, 8, 8), torch.tensor([7, 7, 7, 12, 12, 12]))
        >>> from_dataset(pairs).classes
        ('7', '12')
    """
    name = name or type(dataset).__name__
    images, labels = _read(dataset, _length(dataset, name), name, max_gib)
    classes = sorted(set(labels))
    number = {label: k for k, label in enumerate(classes)}
    named = _class_names(dataset)
    titles = tuple(str(named[c]) if named and isinstance(c, int) and 0 <= c < len(named) else str(c) for c in classes)
    return ImageSet(images, torch.tensor([number[label] for label in labels]), titles, name=name)


def _length(dataset: Any, name: str) -> int:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(f"{name} has no length or no items by number: expected an ImageSet or a map-style Dataset")
    if not len(dataset):
        raise DataError(f"{name} is empty")
    return len(dataset)


def _read(dataset: Any, count: int, name: str, max_gib: float) -> tuple[Tensor, list[Any]]:
    """Images (N, C, H, W) uint8 and the labels as they are."""
    from tqdm import tqdm

    images: list[Tensor] = []
    labels = []
    for i in tqdm(range(count), f"reading {name}", disable=not sys.stderr.isatty(), leave=False):
        image, label = _pair(dataset[i], f"item {i} of {name}")
        images.append(_pixels(image, f"item {i} of {name}"))
        labels.append(_label(label, f"item {i} of {name}"))
        _check_size(images, count, name, max_gib)
    if len({type(label) for label in labels}) > 1:
        raise DataError(f"{name} has labels that are numbers and labels that are names: expected one kind")
    channels = max(len(image) for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images]), labels


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        keys = [next((key for key in known if key in item), None) for known in (IMAGE_KEYS, LABEL_KEYS)]
        if None not in keys:
            return item[keys[0]], item[keys[1]]
        raise DataError(f"{where} has the keys {', '.join(map(str, item))}: expected image and label")
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DataError(f"{where} is a {type(item).__name__}: expected (image, label)")


def _pixels(image: Any, where: str) -> Tensor:
    """An image as (1 or 3, H, W) uint8."""
    if hasattr(image, "getbands"):  # of PIL
        return decode_image(image, where, grey=image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16"))
    if not isinstance(image, Tensor):
        image = _from_array(image, where)
    if image.dim() == 2:
        image = image[None]
    if image.dim() != 3 or len(image) not in (1, 3) or not image.numel():
        raise DataError(f"{where} has an image of shape {tuple(image.shape)}: expected (C, H, W) with 1 or 3 channels")
    return _bytes(image.detach().cpu(), where)


def _from_array(image: Any, where: str) -> Tensor:
    """An array (H, W) or (H, W, C) as a tensor with the channels first."""
    import numpy as np

    if not isinstance(image, np.ndarray) or image.dtype.kind not in "uif" or image.ndim not in (2, 3):
        raise DataError(f"{where} has an image of type {type(image).__name__}: expected a PIL image, array or tensor")
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    return tensor.permute(2, 0, 1) if image.ndim == 3 else tensor


def _bytes(image: Tensor, where: str) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise DataError(f"{where} has {image.dtype} pixels: expected uint8, or floating-point ones in [0, 1]")
    low, high = (float(bound) for bound in torch.aminmax(image))
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{where} has pixels from {low:.3g} to {high:.3g}: expected [0, 1]; leave out Normalize, it is done later"
        )
    return (image.float() * 255).round_().to(torch.uint8)


def _label(label: Any, where: str) -> int | str:
    if isinstance(label, str):
        return label
    number = (
        label.item() if hasattr(label, "item") and getattr(label, "size", None) is not None and _one(label) else label
    )
    if isinstance(number, bool) or not isinstance(number, int):
        raise DataError(f"{where} has the label {label!r}: expected an integer or a class name")
    return number


def _one(label: Any) -> bool:
    """Whether a tensor, array or NumPy number holds one value."""
    return (label.numel() if isinstance(label, Tensor) else label.size) == 1


def _check_size(images: list[Tensor], count: int, name: str, max_gib: float) -> None:
    first, last = images[0], images[-1]
    if first.shape[1:] != last.shape[1:]:
        raise DataError(
            f"item {len(images) - 1} of {name} has {last.shape[1]}x{last.shape[2]} pixels, item 0 {first.shape[1]}x"
            f"{first.shape[2]}: resize them in its transform"
        )
    gib = count * last.numel() / 2**30
    if gib > max_gib:
        raise DataError(f"{name}: {count} images need {gib:.1f} GiB, more than {max_gib:g}: make them smaller or fewer")


def _class_names(dataset: Any) -> list[str] | None:
    """The names of the labels, of the dataset or the one that it is a part of."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return list(names)
        dataset = getattr(dataset, "dataset", None)
    return None
