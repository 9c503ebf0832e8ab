"""Labels as mass: what a batch's targets, class weights, smoothing and bias correction amount to.

Every loss here is linear in the label, so hard labels, soft labels, label smoothing, class weights and bias
correction are all one thing: each sample n has a weight $w_n$ and label mass $m_{nk}$ over the classes.
A hard label keeps its index instead of the mass, which saves the (N, K) matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 1e-30  # far below any sum of weights, far above the smallest float32: 0 / SMALLEST is 0
PAIR_SHARE = 1e-6  # of the squared weight: what pairs of two different samples hold at least, above rounding


class Labels(NamedTuple):
    """A batch's labels: either `hard` or `mass` is given.

    Attributes:
        hard: (N,) int64 class indices, 0 where ignored.
        mass: (N, K) label mass, already times the weight.
        weight: (N,) weight of each sample, 0 where ignored.
    """

    hard: Tensor | None
    mass: Tensor | None
    weight: Tensor

    def contract(self, values: Tensor) -> Tensor:
        """Weighted value (N,) of each sample's own label, from `values` (N, K) of every label."""
        if self.hard is not None:
            return self.weight * values.gather(1, self.hard[:, None])[:, 0]
        assert self.mass is not None
        return (self.mass * values).sum(1)

    def marginal(self, num_classes: int) -> Tensor:
        """Summed mass (K,) of each class."""
        if self.hard is not None:
            return self.weight.new_zeros(num_classes).scatter_add(0, self.hard, self.weight)
        assert self.mass is not None
        return self.mass.sum(0)

    def rolled(self, shift: Tensor) -> Labels:
        """The labels of the samples `shift` (0-dim int64, on the CPU) places before, cyclically."""
        if torch.compiler.is_compiling():  # a Python number would end the graph
            n = self.weight.numel()
            order = (torch.arange(n, device=self.weight.device) - shift) % n
            hard, mass = (None if part is None else part[order] for part in self[:2])
            return Labels(hard, mass, self.weight[order])
        places = int(shift)
        hard, mass = (None if part is None else part.roll(places, 0) for part in self[:2])
        return Labels(hard, mass, self.weight.roll(places, 0))

    def mean(self, values: Tensor) -> Tensor:
        """Sum of already weighted `values` (N,) over the summed weight; 0 where no sample counts."""
        return values.sum() / self.weight.sum().clamp_min(SMALLEST)


def flatten(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K, d1, ...) and targets, as nn.CrossEntropyLoss takes them, as (N, K) and (N,) or (N, K).

    Logits of half precision become float32, which is the type losses are computed in.

    Raises:
        ValueError: The shapes or types do not belong together.
    """
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape (B, K) or (B, K, d1, ...), got {tuple(logits.shape)}")
    soft = targets.is_floating_point()
    expected = logits.shape if soft else logits.shape[:1] + logits.shape[2:]
    if targets.shape != expected:
        raise ValueError(
            f"targets must be class indices of shape {tuple(logits.shape[:1] + logits.shape[2:])} or probabilities of "
            f"shape {tuple(logits.shape)} for logits {tuple(logits.shape)}, got {targets.dtype} {tuple(targets.shape)}"
        )
    k = logits.shape[1]
    if logits.ndim > 2:
        logits = logits.movedim(1, -1).reshape(-1, k)
        targets = targets.movedim(1, -1).reshape(-1, k) if soft else targets.reshape(-1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, targets.to(logits.dtype if soft else torch.int64)


def make_labels(
    targets: Tensor,
    logits: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    coefficients: Tensor | None = None,
) -> Labels:
    """The label mass of flattened `targets` (N,) int64 or (N, K) probabilities, for `logits` (N, K).

    Args:
        targets: Class indices or probabilities.
        logits: Give the number of classes, type and device.
        weight: (K,) weight of each class; samples are drawn that much more often, so to speak. Not with coefficients.
        ignore_index: Hard labels of this value have weight 0.
        label_smoothing: Share of the mass spread evenly over all classes, in [0, 1].
        coefficients: (K, K) bias correction: a label k stands for row k's mass (see `transition.coefficients`).
    """
    k = logits.shape[1]
    if targets.is_floating_point():
        sample_weight = spread(targets, label_smoothing, weight).sum(1)
        return Labels(None, spread(targets, label_smoothing, weight, coefficients), sample_weight)
    counts = targets != ignore_index
    hard = targets * counts  # class 0, of weight 0, where ignored
    if label_smoothing:
        eye = torch.eye(k, dtype=logits.dtype, device=logits.device)
        sample_weight = counts * spread(eye, label_smoothing, weight).sum(1)[hard]
        rows = spread(eye, label_smoothing, weight, coefficients)
        return Labels(None, counts[:, None] * rows[hard], sample_weight)
    sample_weight = counts.to(logits.dtype)
    if weight is not None:
        sample_weight = sample_weight * weight[hard]
    if coefficients is None:
        return Labels(hard, None, sample_weight)
    return Labels(None, sample_weight[:, None] * coefficients[hard], sample_weight)


def spread(
    mass: Tensor, label_smoothing: float, weight: Tensor | None = None, coefficients: Tensor | None = None
) -> Tensor:
    """Label mass (..., K) corrected, then smoothed, then weighted: a correction knows unsmoothed noisy labels only."""
    if coefficients is not None:
        mass = mass @ coefficients
    if label_smoothing:
        mass = mass * (1 - label_smoothing) + mass.sum(-1, keepdim=True) * (label_smoothing / mass.shape[-1])
    return mass if weight is None else mass * weight


def reduce(values: Tensor, labels: Labels, reduction: str, shape: torch.Size) -> Tensor:
    """Weighted values (N,) reduced as nn.CrossEntropyLoss does: `none` gives `shape`, the others 0-dim."""
    if reduction == "none":
        return values.view(shape)
    return values.sum() if reduction == "sum" else labels.mean(values)


def pair_scale(weight: Tensor) -> Tensor:
    """W / (W^2 - sum of w^2): over all ordered pairs of different samples, their weights times this sum to W.

    0 with fewer than two weighted samples: there is no pair, and the difference is rounding.
    """
    total = weight.sum()
    pairs = total * total - weight @ weight
    some = pairs > PAIR_SHARE * total * total
    return torch.where(some, total / torch.where(some, pairs, 1.0), 0.0)


def full_precision(logits: Tensor) -> torch.autocast:
    """The context that losses compute in: without autocast, which would round their matrix products to 16 bits."""
    return torch.autocast(logits.device.type, enabled=False)


def check_options(reduction: str, label_smoothing: float, weight: Tensor | None, corrected: bool = False) -> None:
    """Raise ValueError for an option out of range, or for class weights of `corrected` labels.

    Weights belong to clean classes: weighting the noisy label is biased, and weighting the corrected mass gives samples
    of negative weight, whose sum no loss can be divided by.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"unknown reduction {reduction!r}: expected none, mean or sum")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    if weight is not None and weight.ndim != 1:
        raise ValueError(f"weight must have shape (K,), got {tuple(weight.shape)}")
    if weight is not None and corrected:
        raise ValueError("class weights cannot be combined with a bias correction: leave weight or transition away")


def class_prior(labels: Tensor, num_classes: int, ignore_index: int = -100) -> Tensor:
    """Share (K,) float32 of each class among integer `labels` of any shape."""
    labels = labels.flatten()
    counts = torch.bincount(labels[labels != ignore_index], minlength=num_classes)
    return counts.float() / counts.sum().clamp_min(1)
