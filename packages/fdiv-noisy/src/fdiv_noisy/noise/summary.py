"""What is in noisy labels: rates, matrix and how well the named structures fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fdiv_noisy.estimation.pairs import find_pairs
from fdiv_noisy.estimation.report import class_name
from fdiv_noisy.estimation.sets import AnchorSets
from fdiv_noisy.transition import check_classes, fit_sparse, fit_uniform

SHOWN_CLASSES = 20


@dataclass(frozen=True, eq=False)
class NoiseSummary:
    """What `describe` finds.

    Attributes:
        counts: (K,) int64, samples of each noisy class.
        rate: Share of wrong labels; None without clean labels, as are the following.
        transition: (K, K) share of class i's samples that are labelled j; a class without samples has an identity row.
        uniform_residual: L1 distance of the transition to its uniform fit over its off-diagonal mass.
        pairs: (P, 2) classes that flip into each other far more than into any other class.
        sparse_residual: As `uniform_residual`, for the sparse fit on `pairs`.
        names: Of the classes, which the text takes in place of their numbers; empty where they are not known.
    """

    counts: Tensor
    rate: float | None = None
    transition: Tensor | None = None
    uniform_residual: float | None = None
    pairs: Tensor | None = None
    sparse_residual: float | None = None
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        n, k = int(self.counts.sum()), self.counts.numel()
        lines = [f"{n} labels, {k} classes of {int(self.counts.min())} to {int(self.counts.max())} samples"]
        if self.transition is None or self.pairs is None:
            return lines[0]
        shown = [[class_name(k, self.names) for k in pair] for pair in self.pairs.tolist()[:SHOWN_CLASSES]]
        pairs = ", ".join(map("-".join, shown)) or "none"
        lines += [
            f"wrong labels: {self.rate:.2%}",
            f"misfit of uniform off-diagonal noise: {self.uniform_residual:.3f}",
            f"misfit of sparse noise on the pairs {pairs}: {self.sparse_residual:.3f}",
        ]
        if k <= SHOWN_CLASSES:
            lines.append("transition matrix (rows: true class):")
            lines += [" ".join(f"{value:.3f}" for value in row) for row in self.transition.tolist()]
        return "\n".join(lines)


def describe(
    noisy: Tensor, clean: Tensor | None = None, num_classes: int | None = None, *, names: Sequence[str] = ()
) -> NoiseSummary:
    """Class counts of noisy labels and, with the clean ones, the noise itself.

    Args:
        noisy: (N,) int64.
        clean: (N,) int64 true classes, or None.
        num_classes: K; by default the largest label plus one.
        names: Of the K classes, for the summary's text; empty for their numbers.

    Raises:
        ValueError: Labels are out of range, or there are none.
    """
    if noisy.numel() == 0:
        raise ValueError("describe needs at least one label")
    if num_classes is None:
        num_classes = 1 + max(int(labels.max()) for labels in (noisy, clean) if labels is not None)
    check_classes(noisy, num_classes)
    counts = torch.bincount(noisy, minlength=num_classes)
    if clean is None:
        return NoiseSummary(counts, names=tuple(names))
    joint = confusion(clean, noisy, num_classes)
    transition = joint / joint.sum(1, keepdim=True).clamp_min(1)
    transition += (joint.sum(1) == 0).to(transition.dtype).diag()
    error = AnchorSets(transition, joint.sum(1).long()).standard_error()
    pairs = find_pairs(transition, error).pairs
    return NoiseSummary(
        counts,
        rate=float((noisy != clean).double().mean()),
        transition=transition,
        uniform_residual=fit_uniform(transition)[1],
        pairs=pairs,
        sparse_residual=fit_sparse(transition, pairs)[1],
        names=tuple(names),
    )


def confusion(clean: Tensor, noisy: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K) float64 of samples with clean label i and noisy label j, from two (N,) int64 tensors.

    Raises:
        ValueError: The shapes differ, or labels are out of range.
    """
    if clean.shape != noisy.shape:
        raise ValueError(f"clean and noisy labels must have one shape, got {tuple(clean.shape)}, {tuple(noisy.shape)}")
    check_classes(clean, num_classes)
    check_classes(noisy, num_classes)
    cells = clean.flatten() * num_classes + noisy.flatten()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes).double()
