"""Domain pairs of grey sets and their coloured kin, and of digits from three places."""

from __future__ import annotations

from dataclasses import replace

import torch

from robustvision_core.data.domains.blending import blend
from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.offline.backgrounds import draw_backgrounds
from robustvision_core.data.registry.image_sets import load
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.splits import split
from robustvision_core.data.transforms.convert import pad_to, resize, to_rgb
from robustvision_core.errors import DataError, unknown_name

PROTOCOLS = ("disjoint", "canonical", "pooled")
POOLED = (0.7, 0.15, 0.15)
SOLID = 127  # grey level above which an enlarged digit is white


def load_mnist_mnistm(
    query: Query,
    protocol: str = "disjoint",
    val: float = 0.1,
    size: int = 28,
    seed: int = 0,
    backgrounds: str = "photos",
    photos: str = "",
) -> DomainPair:
    """MNIST and the same digits on colour backgrounds.

    As every MNIST-M image shows a digit of MNIST, the digits must be dealt out; `protocol` says how:

    - `disjoint` (default): half of MNIST's training digits are source, the other half target, by class. No digit that
      a method sees under its source label is in the target.
    - `canonical`: all training digits are in both domains, as in the literature since Ganin and Lempitsky. No test
      digit is ever trained on, but every unlabelled target image has its labelled twin in the source.
    - `pooled`: each domain's training and test sets are put together and cut 70/15/15 at random, as the published
      pseudo-labelling experiments did. Digits of the target's test are in the source's training set: a leak, here for
      comparison only. Ids of test digits come after those for training.

    In the first two the test parts are the official test sets, which show the same digits and train nothing. `val` of
    each training part is cut off for validation.

    Args:
        query: Names the root.
        protocol: `disjoint`, `canonical` or `pooled`.
        val: Share of each training set for validation.
        size: 28, or 32 by a black border.
        seed: Of the halves and cuts, not of the images.
        backgrounds: `photos`, or `procedural`, which needs none.
        photos: As in `mnist-m`.
    """
    return _coloured(query, "mnist", protocol, val, size, seed, backgrounds, photos)


def load_fashion_fashionm(
    query: Query,
    protocol: str = "disjoint",
    val: float = 0.1,
    size: int = 28,
    seed: int = 0,
    backgrounds: str = "photos",
    photos: str = "",
) -> DomainPair:
    """Fashion-MNIST and the same clothes on colour backgrounds; options as of `mnist-mnistm`."""
    return _coloured(query, "fashion-mnist", protocol, val, size, seed, backgrounds, photos)


def load_digits_shift(
    query: Query, strength: float = 0.6, val: float = 0.15, size: int = 28, seed: int = 0
) -> DomainPair:
    """A hard shift of real digits that needs no file: half of scikit-learn's are source, the others target.

    The target is made as MNIST-M is, by `blend`, of enlarged and binarised digits and `draw_backgrounds`. No digit is
    in both domains, in training, validation or test. A CNN of three layers that was trained on the source read 99 % of
    the source's test and 32 to 61 % of the target's (3 seeds); trained on the target's labels, 85 to 88 %.

    Args:
        query: Names the pair.
        strength: Brightness of the backgrounds, in (0, 1]. At 1 digits are brighter or darker than what is around
            them, as in MNIST-M, and hard to read for people too; at 0.5 and below always brighter.
        val: Share of each training set for validation.
        size: Height and width.
        seed: Of the halves, cuts and backgrounds.
    """
    if not 8 <= size <= 512:
        raise DataError(f"{query.name}: size is {size}, expected 8 to 512 pixels")
    if not 0 < strength <= 1:
        raise DataError(f"{query.name}: strength is {strength}, expected above 0, up to 1")
    halves = [split(load("digits", part, size=size), [0.5, 0.5], seed=seed) for part in ("train", "test")]
    (source_train, target_train), (source_test, target_test) = halves
    source = _with_val(source_train, source_test, val, seed)
    target = _with_val(target_train, target_test, val, seed)
    shifted = (_on_drawing(part, strength, seed) for part in target)
    return DomainPair(*map(to_rgb, source), *shifted, name=query.name)


def load_mnist_usps(query: Query, val: float = 0.1, size: int = 28, seed: int = 0) -> DomainPair:
    """Official training and test parts of both, USPS enlarged; `val` of each training part is cut off."""
    return _two(query, "mnist", "usps", val, size, seed)


def load_usps_mnist(query: Query, val: float = 0.1, size: int = 28, seed: int = 0) -> DomainPair:
    """As `mnist-usps`, the other way round."""
    return _two(query, "usps", "mnist", val, size, seed)


def load_svhn_mnist(query: Query, val: float = 0.1, size: int = 32, seed: int = 0) -> DomainPair:
    """Official training and test parts of both, MNIST enlarged and in three channels; see `mnist-usps`."""
    return _two(query, "svhn", "mnist", val, size, seed)


def _two(query: Query, source: str, target: str, val: float, size: int, seed: int) -> DomainPair:
    sets = [[load(name, part, query.root, query.download) for part in ("train", "test")] for name in (source, target)]
    colour = any(data.shape[0] == 3 for pair in sets for data in pair)
    same = [[resize(to_rgb(data) if colour else data, size) for data in pair] for pair in sets]
    return DomainPair(*(part for pair in same for part in _with_val(pair[0], pair[1], val, seed)), name=query.name)


def _coloured(
    query: Query, base: str, protocol: str, val: float, size: int, seed: int, backgrounds: str, photos: str
) -> DomainPair:
    if protocol not in PROTOCOLS:
        raise unknown_name(f"protocol of {query.name}", protocol, PROTOCOLS)
    if backgrounds not in ("photos", "procedural"):
        raise unknown_name(f"backgrounds of {query.name}", backgrounds, ("photos", "procedural"))
    if photos and backgrounds == "procedural":
        raise DataError(f"{query.name}: photos are given, but the backgrounds are to be procedural: leave out one")
    made, options = (f"{base}-m", {"photos": photos}) if backgrounds == "photos" else (f"{base}-m-procedural", {})
    grey, coloured = (
        [load(name, part, query.root, query.download, **chosen) for part in ("train", "test")]
        for name, chosen in ((base, {}), (made, options | {"size": size}))
    )
    plain = [to_rgb(pad_to(data, size)) for data in grey]
    if protocol == "pooled":
        cut = [split(_pool(*pair), POOLED, seed=seed + k) for k, pair in enumerate((plain, coloured))]
        return DomainPair(*cut[0], *cut[1], name=query.name)
    if protocol == "disjoint":
        first, second = split(plain[0], [0.5, 0.5], seed=seed)
        plain[0], coloured[0] = first, coloured[0].take(torch.isin(coloured[0].ids, second.ids))
    source, target = (_with_val(pair[0], pair[1], val, seed) for pair in (plain, coloured))
    return DomainPair(*source, *target, name=query.name)


def _with_val(train: ImageSet, test: ImageSet, val: float, seed: int) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test parts."""
    if not 0 < val < 1:
        raise DataError(f"{train.name}: val is {val}, expected a share between 0 and 1")
    kept, held = split(train, [1 - float(val), float(val)], seed=seed)
    return kept, held, test


def _pool(train: ImageSet, test: ImageSet) -> ImageSet:
    return replace(
        train,
        images=torch.cat([train.images, test.images]),
        labels=torch.cat([train.labels, test.labels]),
        ids=torch.cat([train.ids, test.ids + len(train)]),
    )


def _on_drawing(data: ImageSet, strength: float, seed: int) -> ImageSet:
    solid = (data.images > SOLID).to(torch.uint8)
    backgrounds = (draw_backgrounds(data.ids, data.shape[1], seed) * strength).round_().to(torch.uint8)
    return replace(data, images=blend(solid, backgrounds))
