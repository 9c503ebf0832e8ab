"""Labels as mass: what a batch's targets, class weights, smoothing and bias correction amount to.

Every loss here is linear in the label, so hard labels, soft labels, label smoothing, class weights and bias
correction are all one thing: each sample n has a weight $w_n$ and label mass $m_{nk}$ over the classes.
A hard label keeps its index instead of the mass, which saves the (N, K) matrix.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import NamedTuple, ParamSpec

import torch
from torch import Tensor

AS_IT_IS = contextlib.nullcontext()
P = ParamSpec("P")
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
        # a masked class (logit -inf) has an infinite loss in some: no label, no loss
        return (self.mass * values.masked_fill((self.mass == 0) & values.isinf(), 0.0)).sum(1)

    def marginal(self, num_classes: int) -> Tensor:
        """Summed mass (K,) of each class."""
        if self.hard is not None:
            return self.weight.new_zeros(num_classes).scatter_add(0, self.hard, self.weight)
        assert self.mass is not None
        return self.mass.sum(0)

    def rolled(self, shift: Tensor) -> Labels:
        """The labels of the samples `shift` (0-dim int64, on the CPU) places before, cyclically."""
        hard, mass = (None if part is None else rolled(part, shift) for part in self[:2])
        return Labels(hard, mass, rolled(self.weight, shift))

    def mean(self, values: Tensor) -> Tensor:
        """Sum of already weighted `values` (N,) over the summed weight; 0 where no sample counts."""
        return values.sum() / self.weight.sum().clamp_min(SMALLEST)


def rolled(values: Tensor, shift: Tensor) -> Tensor:
    """`values` (N, ...) rolled by `shift` (0-dim int64, on the CPU) places along their first dimension."""
    if not torch.compiler.is_compiling():  # where a Python number would end the graph
        with contextlib.suppress(RuntimeError):  # under vmap with its own randomness there is no one number
            return values.roll(int(shift), 0)
    order = (torch.arange(len(values), device=values.device) - shift.to(values.device)) % len(values)
    return values[order]


def paired(targets: Tensor, shift: Tensor) -> Tensor:
    """(N, 2): each of `targets` (N,) beside that of the sample `shift` (0-dim int64, on the CPU) places before."""
    if not torch.compiler.is_compiling():
        with contextlib.suppress(RuntimeError):  # as in `rolled`
            n, twice = len(targets), torch.cat([targets, targets])
            return twice.as_strided((n, 2), (1, n - int(shift)))
    return torch.stack([targets, rolled(targets, shift)], 1)


def value_shape(logits: Tensor) -> torch.Size:
    """The shape of the losses of single labels: that of logits (K,), (B, K) or (B, K, d1, ...) without the classes."""
    return logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else torch.Size()


def flatten(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets of any shapes that nn.CrossEntropyLoss takes, as (N, K) and (N,) or (N, K).

    Logits of half precision become float32, which is the type losses are computed in.

    Raises:
        ValueError: The shapes or types do not belong together, or there is one class only.
    """
    if is_flat(logits, targets):
        return logits, targets
    _check_shapes(logits, targets)
    soft = targets.is_floating_point()
    if logits.ndim == 1:
        logits, targets = logits[None], targets[None]
    k = logits.shape[1]
    if logits.ndim > 2:
        logits = logits.movedim(1, -1).reshape(-1, k)
        targets = targets.movedim(1, -1).reshape(-1, k) if soft else targets.reshape(-1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, targets.to(logits.dtype if soft else torch.int64)


def is_flat(logits: Tensor, targets: Tensor) -> bool:
    """Whether logits (N, K) in single or double precision and class indices (N,) are as losses compute with them."""
    return (
        targets.dtype is torch.int64
        and (logits.dtype is torch.float32 or logits.dtype is torch.float64)
        and logits.ndim == 2
        and logits.shape[1] > 1
        and targets.shape == logits.shape[:1]
    )


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim == 0 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floats of shape (K,), (B, K) or (B, K, d1, ...), got {logits.dtype} {tuple(logits.shape)}"
        )
    classes = logits.shape[min(1, logits.ndim - 1)]
    if classes < 2:
        raise ValueError(
            f"logits {tuple(logits.shape)} have {classes} class, and a label needs two to choose from: "
            "give a binary head two outputs, or hand over torch.cat([0 * logits, logits], 1) with integer targets"
        )
    single, shape = value_shape(logits), tuple(logits.shape)
    fits = targets.shape == (logits.shape if targets.is_floating_point() else single)
    if fits and targets.dtype != torch.bool:
        return
    last = logits.ndim > 2 and targets.shape == logits.shape[:-1]
    hint = "; logits with the classes last need logits.movedim(-1, 1)" if last else ""
    raise ValueError(
        f"targets must be class indices of shape {tuple(single)} or probabilities of shape {shape} for logits {shape}, "
        f"got {targets.dtype} {tuple(targets.shape)}{hint}"
    )


def are_plain(
    targets: Tensor, ignore_index: int | None, weight: Tensor | None, correction: Tensor | None, label_smoothing: float
) -> bool:
    """Whether a loss may try the short way: class indices without any option.

    An ignored label is seen without looking at the labels: `gather` refuses it, on a CPU, where the long way is then
    taken.
    """
    if targets.is_floating_point() or weight is not None or correction is not None or label_smoothing:
        return False
    if ignore_index is None:
        return True
    return ignore_index < 0 and targets.is_cpu and not torch.compiler.is_compiling()


def says_which_label(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`loss`, with a ValueError in place of what torch raises for a target that is no class."""

    @functools.wraps(loss)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return loss(*args, **kwargs)
        try:
            return loss(*args, **kwargs)
        except (IndexError, RuntimeError) as error:
            if not re.search("out of (bounds|range)", str(error)):
                raise
            raise ValueError(f"targets must be classes 0..K-1, or ignore_index: {error}") from error

    return checked


def make_labels(
    targets: Tensor,
    logits: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    coefficients: Tensor | None = None,
) -> Labels:
    """The label mass of flattened `targets` (N,) int64 or (N, K) probabilities, for `logits` (N, K).

    Args:
        targets: Class indices or probabilities.
        logits: Give the number of classes, type and device.
        weight: (K,) weight of each class; samples are drawn that much more often, so to speak. Not with coefficients.
        ignore_index: Hard labels of this value have weight 0; None where there are none.
        label_smoothing: Share of the mass spread evenly over all classes, in [0, 1].
        coefficients: (K, K) bias correction: a label k stands for row k's mass (see `transition.coefficients`).
    """
    k = logits.shape[1]
    if targets.is_floating_point():
        sample_weight = spread(targets, label_smoothing, weight).sum(1)
        return Labels(None, spread(targets, label_smoothing, weight, coefficients), sample_weight)
    counts = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    hard = targets * counts  # class 0, of weight 0, where ignored
    if label_smoothing:
        eye = torch.eye(k, dtype=logits.dtype, device=logits.device)
        sample_weight = counts * spread(eye, label_smoothing, weight).sum(1).gather(0, hard)
        rows = spread(eye, label_smoothing, weight, coefficients)
        return Labels(None, counts[:, None] * rows.index_select(0, hard), sample_weight)
    sample_weight = counts.to(logits.dtype)
    if weight is not None:
        sample_weight = sample_weight * weight.gather(0, hard)
    if coefficients is None:
        return Labels(hard, None, sample_weight)
    return Labels(None, sample_weight[:, None] * coefficients.index_select(0, hard), sample_weight)


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


def reduce_plain(values: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    """As `reduce`, for labels of weight one each."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values.view(shape)


def full_precision(logits: Tensor) -> contextlib.AbstractContextManager[object]:
    """The context that losses compute in: without autocast, which would round their matrix products to 16 bits."""
    device = logits.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return AS_IT_IS


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


def class_prior(labels: Tensor, num_classes: int, ignore_index: int | None = -100) -> Tensor:
    """Share (K,) float32 of each class among integer `labels` of any shape; all 0 where none counts.

    Raises:
        ValueError: A label is neither a class nor `ignore_index`.
    """
    labels = labels.flatten()
    labels = labels if ignore_index is None else labels[labels != ignore_index]
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    counts = torch.bincount(labels, minlength=num_classes)
    return counts.float() / counts.sum().clamp_min(1)
