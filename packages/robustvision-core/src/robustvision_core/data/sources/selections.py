"""Sets made from others: long-tailed, rotated, or of a few classes."""

from __future__ import annotations

from dataclasses import replace

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry.image_sets import load
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.subsets import long_tail, select_classes
from robustvision_core.data.transforms.convert import pad_to, rotate_each
from robustvision_core.run.runtime import derive_seed

SELECTIVE = ("0", "1", "5", "6", "9")


def load_cifar10_lt(query: Query, rho: float = 10) -> ImageSet:
    """CIFAR-10 by `long_tail`; the test set is whole, thus balanced."""
    data = _base(query, "cifar-10")
    return long_tail(data, rho) if query.split == "train" else data


def load_rot_mnist_lt(query: Query, rho: float = 10, degrees: float = 180, size: int = 28, seed: int = 0) -> ImageSet:
    """MNIST by `long_tail`, then every image by `rotate_each`; the test set is whole, and rotated too.

    Args:
        query: Its `split` is `train` or `test`.
        rho: Size of the first class over that of the last; the paper that the set is from does not say which.
        degrees: Largest angle.
        size: 28, or more by a black border, which keeps the corners.
        seed: Of the angles.
    """
    data = pad_to(_base(query, "mnist"), size)
    chosen = long_tail(data, rho) if query.split == "train" else data
    return rotate_each(chosen, degrees, derive_seed(seed, query.split))


def load_mnist_01569(query: Query, degrees: float = 0, size: int = 28, seed: int = 0) -> ImageSet:
    """Five classes of MNIST by `select_classes`; `degrees` above 0 turns every image by `rotate_each`."""
    data = select_classes(pad_to(_base(query, "mnist"), size), SELECTIVE)
    return rotate_each(data, degrees, derive_seed(seed, query.split)) if degrees else data


def _base(query: Query, name: str) -> ImageSet:
    return replace(load(name, query.split, query.root, query.download), name=query.title)
