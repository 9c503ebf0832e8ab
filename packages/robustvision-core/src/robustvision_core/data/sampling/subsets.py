"""Parts of an image set that are chosen by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.sampling.splits import rank_in_class
from robustvision_core.errors import DataError
from robustvision_core.run.runtime import derive_seed


def select_classes(data: ImageSet, classes: Sequence[int | str]) -> ImageSet:
    """The samples of some classes, labelled by their place in `classes`; order, ids and names are kept.

    Args:
        data: The set to choose from.
        classes: Numbers or names of classes of `data`.

    Raises:
        DataError: There is no such class, or one comes twice.
    """
    chosen = [_class_number(data, wanted) for wanted in classes]
    if len(set(chosen)) != len(chosen) or not chosen:
        raise DataError(f"{data.name}: classes are {list(classes)}, expected one or more, each once")
    place = torch.full((data.num_classes,), -1, device=data.device)
    place[chosen] = torch.arange(len(chosen), device=data.device)
    part = data.take(place[data.labels] >= 0)
    return replace(part, labels=place[part.labels], classes=tuple(data.classes[c] for c in chosen))


def long_tail(data: ImageSet, rho: float, largest: int | None = None) -> ImageSet:
    r"""The first $n_c = \lfloor n \rho^{-c / (K - 1)} \rfloor$ samples of class `c` of `K`, in the order of `data`.

    The usual exponential imbalance (Cui et al. 2019, "Class-balanced loss based on effective number of samples").

    Args:
        data: The set to choose from.
        rho: Size of class 0 over that of the last class, 1 or more; 10 gives the 20,431 images of CIFAR-10-LT.
        largest: `n`, the size of class 0; None takes the largest for which every class has that many.

    Raises:
        DataError: `rho` is below 1, a class has too few samples, or one would be empty.
    """
    if not (rho >= 1 and math.isfinite(rho)):
        raise DataError(f"{data.name}: rho is {rho}, expected 1 or more")
    have = data.class_counts().tolist()
    shares = [rho ** (-c / max(len(have) - 1, 1)) for c in range(len(have))]
    top = min(int(n / share + 1e-9) for n, share in zip(have, shares, strict=True)) if largest is None else largest
    counts = [int(top * share + 1e-9) for share in shares]  # the bit more keeps 500 from becoming 499.99
    for name, count, there in zip(data.classes, counts, have, strict=True):
        if not 1 <= count <= there:
            raise DataError(
                f"{data.name}: class {name!r} has {there} samples and would get {count} of a long tail of rho {rho:g} "
                f"from {top}: lower {'rho' if count < 1 else 'largest'}"
            )
    quota = torch.tensor(counts, device=data.device)
    return data.take(rank_in_class(data.labels, data.num_classes) < quota[data.labels])


def split_labelled(data: ImageSet, amount: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut a set for semi-supervised learning: (labelled, unlabelled), each in the order of `data`.

    With one seed, smaller labelled parts lie inside larger ones.

    Args:
        data: The set to cut.
        amount: An int: so many labelled samples of every class. A float: this share of every class, rounded, and at
            least one of each class that is there.
        seed: Chooses the samples.

    Raises:
        DataError: A share is outside [0, 1], a count negative, or a class has fewer samples.
    """
    have = data.class_counts().cpu()
    quota = _share(data, amount, have) if isinstance(amount, float) else torch.full_like(have, amount)
    short = ((quota > have) & (have > 0)).nonzero()[:, 0].tolist()
    if short or bool((quota < 0).any()):
        count = f"class {data.classes[short[0]]!r} has {have[short[0]]} samples" if short else "counts start at 0"
        raise DataError(f"{data.name}: {count}, {amount} labelled samples of each class were asked for")
    generator = torch.Generator().manual_seed(derive_seed(seed, "labelled"))
    order = torch.randperm(len(data), generator=generator)
    shuffled = data.labels.cpu()[order]
    chosen = torch.empty(len(data), dtype=torch.bool)
    chosen[order] = rank_in_class(shuffled, data.num_classes) < quota[shuffled]
    chosen = chosen.to(data.device)
    return data.take(chosen), data.take(~chosen)


def _share(data: ImageSet, share: float, have: Tensor) -> Tensor:
    if not 0 <= share <= 1:
        raise DataError(f"{data.name}: a labelled share is {share}, expected 0 to 1 (or an int, so many of each class)")
    return (have * share).round().long().clamp_min(1 if share > 0 else 0).minimum(have)


def _class_number(data: ImageSet, wanted: int | str) -> int:
    known = data.classes if isinstance(wanted, str) else range(data.num_classes)
    if wanted not in known:
        raise DataError(f"{data.name} has no class {wanted!r}: it has {', '.join(data.classes)}")
    return known.index(wanted)  # type: ignore[arg-type]  # each is looked up in its own kind
