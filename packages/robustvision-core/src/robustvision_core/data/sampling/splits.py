"""Disjoint parts of an image set, fixed by a seed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError, MissingSplitError
from robustvision_core.run.runtime import derive_seed


def split(data: ImageSet, sizes: Sequence[float], *, seed: int, stratified: bool = True) -> tuple[ImageSet, ...]:
    """Disjoint random parts of `data`, each in the order of `data`.

    The same on every machine and device for one seed, and independent of torch's global generator. Parts are cut one
    after another from one order, so with one seed a smaller first part lies inside a larger one.

    Args:
        data: The set to split.
        sizes: Of each part: all int (counts) or all float (fractions of `data`). Samples left over are left out.
        seed: Chooses the samples.
        stratified: Keep the class proportions in every part, to about one sample a class; each size stays exact.

    Raises:
        DataError: The sizes are negative, mixed, or more than there is.
    """
    counts = _counts(data, sizes)
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = torch.randperm(len(data), generator=generator)
    if stratified:
        order = _interleave(order, data.labels.cpu(), data.num_classes, generator)
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    return tuple(data.take(order[start:end].sort().values) for start, end in pairwise(ends))


def train_and_test(load: Callable[[str], ImageSet], share: float = 0.2, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """The training and the test images of a set; where it has no test images, a share of the others, which is said.

    Args:
        load: From `"train"` or `"test"` to the images, as `functools.partial(load, "csv:photos.csv")`.
        share: Of each class, kept for the test where there is none.
        seed: Chooses them.

    Raises:
        DataError: As `load`.
    """
    train = load("train")
    try:
        return train, load("test")
    except MissingSplitError as missing:
        test, rest = split(train, [share, 1.0 - share], seed=seed)
        if not len(test) or not len(rest):
            raise
        sys.stderr.write(f"{missing}; {len(test)} of the {len(train)} are drawn for the test, their labels as given\n")
        return rest, test


def subset(data: ImageSet, n: int, seed: int, stratified: bool = True) -> ImageSet:
    """`n` random samples of `data`, in its order; see `split`."""
    return split(data, [int(n)], seed=seed, stratified=stratified)[0]


def first(data: ImageSet, n: int) -> ImageSet:
    """The first `n` samples of `data`."""
    if not 0 <= n <= len(data):
        raise DataError(f"{data.name} has {len(data)} samples: {n} were asked for")
    return data.take(torch.arange(n))


def rank_in_class(labels: Tensor, num_classes: int) -> Tensor:
    """(N,) int64: how many earlier samples have the label of each, for `labels` (N,) int64."""
    by_class = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=num_classes)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels), device=labels.device) - starts[labels[by_class]]
    return ranks


def _interleave(order: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Reorder so that every contiguous piece holds the classes in proportion (systematic sampling).

    Sample r of a class of n goes to the place (r + u) / n of the whole, u uniform for each class: without u all
    classes of one sample would meet in the middle.
    """
    shuffled = labels[order]
    offsets = torch.rand(num_classes, generator=generator, dtype=torch.float64)
    counts = torch.bincount(shuffled, minlength=num_classes)
    place = (rank_in_class(shuffled, num_classes) + offsets[shuffled]) / counts[shuffled]
    return order[torch.argsort(place, stable=True)]


def _counts(data: ImageSet, sizes: Sequence[float]) -> list[int]:
    total = len(data)
    if all(isinstance(size, int) for size in sizes):
        counts = [int(size) for size in sizes]
    elif all(isinstance(size, float) for size in sizes):
        # round the running sum, not each size: fractions that sum to 1 then use every sample
        ends = [round(sum(sizes[:i]) * total) for i in range(len(sizes) + 1)]
        counts = [end - start for start, end in pairwise(ends)]
    else:
        raise DataError(f"{data.name}: sizes must be all counts (int) or all fractions (float), got {list(sizes)}")
    if min(counts, default=0) < 0 or min(sizes, default=0) < 0 or sum(counts) > total:
        raise DataError(f"{data.name}: cannot cut {total} samples into parts of {list(sizes)}")
    return counts
