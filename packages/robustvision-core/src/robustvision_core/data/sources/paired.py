"""Domain pairs of any two image sets, wherever they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry.image_sets import load, options_of
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.splits import split
from robustvision_core.data.transforms.convert import resize, to_rgb
from robustvision_core.errors import MissingSplitError, UserError

COMMA = re.compile(r",(?![^{}]*\})")  # not those within braces


def load_pair(
    query: Query,
    image_size: int | None = None,
    sizes: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    max_gib: float | None = None,
) -> DomainPair:
    """Two image sets as source and target.

    Each set's own splits are used. Of one without a test split, or without a validation split, that part is drawn from
    its training images by class. Grey images become RGB where the other set has colours.

    Args:
        query: Its `path` is `SOURCE,TARGET`, each a name as of `robustvision_core.data.load`; a target without a kind
            is of the source's: `folder:photos,drawings`.
        image_size: Height and width of all images; None is 64 for files, and a set's own size for others.
        sizes: Of the training, validation and test part of a set without splits, as shares.
        seed: Chooses those parts.
        max_gib: As of `load_folder`.

    Raises:
        UserError: The name is not written so, or there are not three sizes.
        DataError: A set cannot be had, or the classes of the two differ.
    """
    names = COMMA.split(query.path)
    if len(names) != 2 or not all(names):
        raise UserError(f"domain pair {query.path!r} is written SOURCE,TARGET, each an image set as csv:a.csv")
    if len(sizes) != 3 or not all(isinstance(size, float) for size in sizes):
        raise UserError(f"sizes are {tuple(sizes)}, expected three shares: of the train, val and test part")
    kind = names[0].partition(":")[0]
    names[1] = names[1] if _names_set(names[1]) else f"{kind}:{names[1]}"
    given = {"image_size": image_size, "size": image_size, "max_gib": max_gib}
    both = [_domain(query, name, given, sizes, seed) for name in names]
    if len({part.shape[0] for parts in both for part in parts}) > 1:
        both = [[to_rgb(part) for part in parts] for parts in both]
    return DomainPair(*both[0], *both[1], name="-".join(names))


def _names_set(name: str) -> bool:
    try:
        return bool(options_of(name)) or ":" not in name
    except UserError:
        return False


def _domain(query: Query, name: str, given: dict[str, Any], sizes: Sequence[float], seed: int) -> list[ImageSet]:
    """Training, validation and test images of one set."""
    known = options_of(name)
    options = {key: value for key, value in given.items() if key in known and value is not None}
    train, val, test = (_part(query, name, part, options) for part in ("train", "val", "test"))
    assert train is not None  # its error was raised
    shares = [1.0 - (sizes[1] if val is None else 0.0) - (sizes[2] if test is None else 0.0)]
    shares += [sizes[1]] if val is None else []
    shares += [sizes[2]] if test is None else []
    train, *drawn = split(train, shares, seed=seed) if len(shares) > 1 else (train,)
    parts = [train, val or drawn.pop(0), test or drawn.pop(0)]
    size = given["image_size"]
    return [part if size is None else resize(part, size) for part in parts]


def _part(query: Query, name: str, part: str, options: dict[str, Any]) -> ImageSet | None:
    """One split of a set, or None where it has no such split."""
    try:
        return load(name, part, query.root, query.download, **options)
    except MissingSplitError:
        if part == "train":
            raise
    return None
