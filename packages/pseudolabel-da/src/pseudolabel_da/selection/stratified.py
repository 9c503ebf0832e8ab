"""A labelled sample of the target that keeps the share of every class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.seeds import make_generator


class StratifiedSample(NamedTuple):
    """Rows drawn, and the others.

    Attributes:
        labeled: (M,) rows drawn, in increasing order.
        rest: (N - M,) the others, in increasing order.
        counts: (K,) how many of each class were drawn.
        raised: (K,) bool, the classes whose share came to none and that were given one.
    """

    labeled: Tensor
    rest: Tensor
    counts: Tensor
    raised: Tensor


def stratified_sample(
    labels: Tensor, amount: float | int | Mapping[str, int], *, classes: int | None = None, seed: int = 0
) -> StratifiedSample:
    """Draw a labelled sample without replacement, stratified by class (the paper's section 3.4).

    Every class with samples gives at least one; `raised` says which would have given none.

    Args:
        labels: (N,) class indices.
        amount: A float in (0, 1]: the share of each class, rounded. An int: how many in all, shared out in proportion
            by largest remainders. `{"per_class": n}`: n of each, or all where a class has fewer.
        classes: K; by default the largest label plus one.
        seed: Of the draw.

    Raises:
        ValueError: labels are not integers (N,) with N > 0, or the amount is out of range.
    """
    if labels.ndim != 1 or labels.numel() == 0 or labels.is_floating_point():
        raise ValueError(f"labels must be integers (N,), N > 0, got {labels.dtype} of shape {tuple(labels.shape)}")
    sizes = torch.bincount(labels.cpu(), minlength=classes or 0)
    wanted = _wanted(sizes, amount)
    quota = torch.minimum(wanted.clamp_min(1), sizes)
    shuffled = torch.randperm(len(labels), generator=make_generator(seed, "stratified sample"))
    order = shuffled[labels.cpu()[shuffled].argsort(stable=True)]  # by class, at random within each
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    drawn = torch.arange(len(labels)) - starts < quota.repeat_interleave(sizes)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[order[drawn]] = True
    labeled, rest = (m.nonzero()[:, 0].to(labels.device) for m in (mask, ~mask))
    return StratifiedSample(labeled, rest, quota, (wanted < 1) & (sizes > 0))


def _wanted(sizes: Tensor, amount: float | int | Mapping[str, int]) -> Tensor:
    """How many (K,) the amount asks of each class of these sizes, before any is raised to one."""
    if isinstance(amount, Mapping):
        if set(amount) != {"per_class"} or amount["per_class"] < 1:
            raise ValueError(f'expected {{"per_class": n}} with n > 0, got {dict(amount)}')
        return torch.full_like(sizes, amount["per_class"])
    if isinstance(amount, float):
        if not 0 < amount <= 1:
            raise ValueError(f"a share must be in (0, 1], got {amount}")
        return (sizes * amount).round().long()
    total = int(sizes.sum())
    if not 0 < amount <= total:
        raise ValueError(f"an amount must be from 1 to the {total} samples there are, got {amount}")
    exact = sizes.double() * amount / total
    wanted = exact.floor().long()
    most = (exact - wanted).argsort(descending=True, stable=True)[: amount - int(wanted.sum())]
    wanted[most] += 1
    return wanted
