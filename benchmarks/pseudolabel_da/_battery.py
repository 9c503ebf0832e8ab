"""Shifts that the estimate of wrong labels is tried on; its constants were fitted on others, with other seeds."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pseudolabel_da.seeds import make_generator
from robustvision_core.data import ImageSet, load, load_domains
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import data_root

SIZE, SIDE = 800, 16
Set = tuple[Tensor, Tensor]
Case = tuple[str, Callable[[], tuple[Set, Set]]]


def done_in(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows that a run before this one kept in a file, none at first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a file, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def cut(data: ImageSet, size: int, seed: int, classes: Sequence[int] = range(10), imbalance: float = 1.0) -> Set:
    """`size` images of some classes as (N, 3, 16, 16) in [-1, 1], and labels; the first class the largest."""
    order = torch.randperm(len(data), generator=make_generator(seed, "cut"))
    labels = data.labels[order]
    weights = torch.zeros(int(data.labels.max()) + 1)
    for place, label in enumerate(classes):
        weights[label] = imbalance ** (-place / max(len(classes) - 1, 1))
    quota = (size * weights / weights.sum()).round().long()
    kept = torch.cat([order[labels == label][: int(quota[label])] for label in classes])
    images = F.interpolate(data.images[kept].float() / 127.5 - 1, (SIDE, SIDE), mode="area")
    return images.expand(-1, 3, -1, -1).contiguous(), data.labels[kept]


def turned(degrees: float) -> Callable[[Tensor], Tensor]:
    """A change: the image turned about its middle, its border repeated."""
    angle = torch.tensor(degrees).deg2rad()
    rows = torch.stack([angle.cos(), -angle.sin(), angle * 0, angle.sin(), angle.cos(), angle * 0]).view(1, 2, 3)

    def change(images: Tensor) -> Tensor:
        grid = F.affine_grid(rows.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    return change


def blurred(images: Tensor) -> Tensor:
    """A change: every pixel the mean of 3x3."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def tinted(images: Tensor) -> Tensor:
    """A change: dusk, dark and blue."""
    return (images + 1) * torch.tensor([0.35, 0.45, 0.8])[:, None, None] - 1


def grey(images: Tensor) -> Tensor:
    """A change: no colour."""
    return images.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def speckled(images: Tensor) -> Tensor:
    """A change: a quarter of the pixels lost."""
    kept = torch.rand(images[:, :1].shape, generator=make_generator(0, "speckles")) > 0.25
    return torch.where(kept, images, -1.0)


CHANGES: dict[str, list[tuple[str, Callable[[Tensor], Tensor]]]] = {
    "mnist": [("turned 25", turned(25)), ("turned 50", turned(50)), ("negative", torch.neg), ("speckled", speckled)],
    "fashion-mnist": [("turned 15", turned(15)), ("blurred", blurred), ("negative", torch.neg)],
    "cifar-10": [("dusk", tinted), ("blurred", blurred)],
    "tiny-imagenet": [("grey", grey), ("speckled", speckled)],
}


def cases(seed: int) -> Iterator[Case]:
    """Name of a shift, and a maker of source and target."""
    for strength in (0.3, 0.6, 1.0):
        pair = load_domains("digits-shift", seed=seed, strength=strength)
        yield f"digits-shift, strength {strength:g}", _pair(pair.source_train, pair.target_train, seed)
    if data_root() is None:
        return
    for name, few in (("mnist-mnistm", range(4, 10)), ("fashion-fashionm", range(3, 8))):
        pair = load_domains(name, seed=seed)
        own, theirs = pair.source_train, pair.target_train
        yield name, _pair(own, theirs, seed)
        yield f"{name}, {len(few)} of 10 classes", _pair(own, theirs, seed, few)
        yield f"{name}, 5 to 1", _pair(own, theirs, seed, range(10), 5.0)
    sets = {name: load(name, "train") for name in CHANGES}
    for name, changes in CHANGES.items():
        for what, change in changes:
            yield f"{name}, {what}", _changed(sets[name], change, seed)
    yield "clothes to photos", _pair(sets["fashion-mnist"], sets["cifar-10"], seed)
    yield "photos to digits", _pair(sets["cifar-10"], sets["mnist"], seed)
    yield "mnist, halves", _pair(sets["mnist"], sets["mnist"], seed)


def _pair(
    source: ImageSet, target: ImageSet, seed: int, few: Sequence[int] = range(10), imbalance: float = 1.0
) -> Callable[[], tuple[Set, Set]]:
    size = SIZE * len(few) // 10
    return lambda: (cut(source, SIZE, seed), cut(target, size, seed + 500, few, imbalance))


def _changed(data: ImageSet, change: Callable[[Tensor], Tensor], seed: int) -> Callable[[], tuple[Set, Set]]:
    def make() -> tuple[Set, Set]:
        images, labels = cut(data, SIZE, seed + 500)
        return cut(data, SIZE, seed), (change(images), labels)

    return make
