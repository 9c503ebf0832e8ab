"""One face for the kinds of data a user may have: tensors, sets of images, and map-style datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset, default_collate

Batch = tuple[Tensor, Tensor | None]


class Samples(Protocol):
    """Samples by row number; the row number is a sample's identity."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Inputs (B, ...) and labels (B,), None without labels, of each (B,) tensor of rows."""
        ...


class TensorSamples:
    """Samples held as tensors, on one device, where batches are drawn by index.

    Args:
        inputs: (N, ...).
        labels: (N,) class indices of any integer type, or None.
    """

    def __init__(self, inputs: Tensor, labels: Tensor | None = None) -> None:
        if labels is not None and (labels.ndim != 1 or len(labels) != len(inputs)):
            raise ValueError(f"expected labels of shape ({len(inputs)},), got {tuple(labels.shape)}")
        self.inputs = inputs
        self.labels = None if labels is None else class_indices(labels)

    def __len__(self) -> int:
        return len(self.inputs)

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches, by index."""
        for rows in batches:
            rows = rows.to(self.inputs.device)
            inputs = self.inputs.index_select(0, rows)  # many times faster than [] on the CPU
            yield inputs, None if self.labels is None else self.labels.index_select(0, rows)


def class_indices(labels: Tensor) -> Tensor:
    """Labels of an integer type as int64, which losses and one-hot codes ask for; others as they are."""
    return labels if labels.is_floating_point() else labels.long()


class _Rows:
    """A batch sampler whose batches are set anew for each pass, so that its loader is built only once."""

    def __init__(self) -> None:
        self.batches: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class DatasetSamples:
    """A map-style dataset of (input, label), or of inputs alone, read by a loader that lives as long as this.

    It should give the same input for the same row each time: random changes belong into the labeler's `augment`, where
    they are drawn anew for each epoch and repeat when a run is resumed.

    Args:
        dataset: With `__len__` and `__getitem__`.
        workers: Processes that read it.
    """

    def __init__(self, dataset: Dataset[Any], workers: int = 0) -> None:
        self.dataset = dataset
        self.rows = _Rows()
        self.loader = DataLoader(
            dataset,
            batch_sampler=self.rows,  # pyright: ignore[reportArgumentType]  # any iterable of lists will do
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # its own: drawing from torch's would change dropout
            collate_fn=collate,
        )

    def __len__(self) -> int:
        return len(self.dataset)  # pyright: ignore[reportArgumentType]  # torch's Dataset leaves __len__ out

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """The batches, read by torch's loader."""
        self.rows.batches = batches
        yield from self.loader


INPUTS = ("pixel_values", "image", "images", "img", "inputs", "input", "x")
LABELS = ("label", "labels", "target", "targets", "fine_label", "y")


def pair_of(item: Any) -> tuple[Any, Any]:
    """The input and the label, or None, of what a dataset gives: a pair or more (the rest is left out), a dict, or an
    input alone.

    Raises:
        ValueError: A dict has no input under any name of `INPUTS`.
    """
    if isinstance(item, Mapping):
        found = [[item[name] for name in names if name in item] for names in (INPUTS, LABELS)]
        if not found[0]:
            raise ValueError(f"a sample has {', '.join(map(str, item))}, expected the input as {', '.join(INPUTS)}")
        return found[0][0], found[1][0] if found[1] else None
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def collate(items: Sequence[Any]) -> Batch:
    """A batch of what a dataset gives; labels that are no numbers, as names may be, count as none."""
    inputs, labels = zip(*map(pair_of, items), strict=True)
    try:
        batch = default_collate(list(inputs))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"cannot make a batch of the samples' inputs ({_kind(inputs[0])}): {error}") from error
    if not isinstance(batch, Tensor):
        raise ValueError(f"a sample's input is {_kind(inputs[0])}, expected a tensor, an array or a number")
    if any(label is None or isinstance(label, str) for label in labels):
        return batch, None
    return batch, class_indices(torch.stack([torch.as_tensor(label) for label in labels]))


def _kind(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"{type(value).__module__}.{type(value).__name__}{shape}"


def as_samples(data: Any, device: torch.device | str = "cpu", workers: int = 0) -> Samples:
    """`data` as `Samples`.

    Args:
        data: A tensor of inputs (N, ...); a pair of tensors or arrays (inputs, labels (N,)), whose labels may be a
            list or None; a dict of them; an object with tensors `.images` (N, C, H, W) and `.labels`; a map-style
            dataset of (input, label), of dicts or of inputs, whose labels may be None; an empty tuple; or what this
            function gave. In dicts the inputs are found under one of `INPUTS`, the labels under one of `LABELS`.
        device: Where tensors are held, whole. Give a dataset where they do not fit.
        workers: Processes that read a dataset.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(data, TensorSamples | DatasetSamples):
        return data
    if isinstance(data, Tensor):
        return TensorSamples(data.to(device))
    if isinstance(data, Mapping):
        data = cast("tuple[Any, Any]", pair_of(data))
        if data[1] is None and not _is_array(data[0]):
            raise ValueError(f"the inputs are {type(data[0]).__name__}, expected a tensor or an array")
    if isinstance(data, tuple | list):
        if len(data) == 2 and _is_list(data[0]) and _is_numbers(data[1], len(list(data[0]))):
            return TensorSamples(_as_tensor(data[0], "inputs").to(device), _as_tensor(data[1], "labels").to(device))
        if len(data) == 2 and _is_array(data[0]) and (data[1] is None or _is_array(data[1]) or _is_list(data[1])):
            labels = None if data[1] is None else _as_tensor(data[1], "labels").to(device)
            return TensorSamples(_as_tensor(data[0], "inputs").to(device), labels)
        if len(data) == 0:
            return TensorSamples(torch.zeros(0, device=device))
    images, labels = getattr(data, "images", None), getattr(data, "labels", None)
    if isinstance(images, Tensor):
        return TensorSamples(images.to(device), labels.to(device) if isinstance(labels, Tensor) else None)
    refused = isinstance(data, str | bytes)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not refused:
        return DatasetSamples(cast("Dataset[Any]", data), workers)
    raise ValueError(
        f"cannot read samples from {type(data).__name__}: expected a tensor, a pair (inputs, labels) of tensors, "
        "a dict of them, an object with .images and .labels, or a map-style dataset"
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _is_numbers(value: Any, count: int) -> bool:
    return _is_list(value) and len(value) == count and all(isinstance(item, int) for item in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _as_tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value.__array__() if hasattr(value, "__array__") else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot make a tensor of the {what}: {error}") from error


def joined(first: Samples, second: Samples | None) -> Samples:
    """The rows of `first`, then those of `second`: tensors stay tensors where both are of one shape and type."""
    if second is None or len(second) == 0:
        return first
    if isinstance(first, TensorSamples) and isinstance(second, TensorSamples):
        a, b = first.inputs, second.inputs
        if a.shape[1:] == b.shape[1:] and a.dtype == b.dtype:
            if first.labels is None or second.labels is None:
                raise ValueError("source samples and labelled target samples need labels: give (inputs, labels)")
            return TensorSamples(torch.cat([a, b]), torch.cat([first.labels, second.labels]))
    workers = max(s.loader.num_workers if isinstance(s, DatasetSamples) else 0 for s in (first, second))
    return DatasetSamples(ConcatDataset([_dataset(first), _dataset(second)]), workers)


def _dataset(samples: Samples) -> Dataset[Any]:
    if isinstance(samples, DatasetSamples):
        return samples.dataset
    if isinstance(samples, TensorSamples) and samples.labels is not None:
        return TensorDataset(samples.inputs.cpu(), samples.labels.cpu())
    raise ValueError(f"cannot join {type(samples).__name__} with others: give labelled tensors or datasets")


def split_batches(rows: Tensor, batch_size: int, smallest: int = 2) -> list[Tensor]:
    """Cut rows (n,) into batches; a last one below `smallest` joins the one before it.

    No row is left out. Batch norm cannot train on one value a channel, which is why batches of one are merged; where
    there is but one row in all, its batch is of one.
    """
    batches = list(rows.split(batch_size)) if rows.numel() else []
    if len(batches) > 1 and batches[-1].numel() < smallest:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
