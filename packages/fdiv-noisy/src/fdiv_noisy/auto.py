"""One call from noisy data to the loss to train with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fdiv_noisy.estimation import NoiseReport, estimate
from fdiv_noisy.labels import class_prior
from fdiv_noisy.losses.f_divergence import FDivergenceLoss
from fdiv_noisy.losses.pair_conditional import PairConditionalLoss
from fdiv_noisy.schedules import WarmUp


def auto_loss(
    inputs: Tensor, labels: Tensor, num_classes: int, *, warmup: int = 1, **options: Any
) -> tuple[WarmUp, NoiseReport]:
    """Find the noise in a training set from its noisy labels alone and choose the loss for it.

    Args:
        inputs: (N, ...) images or features, uint8 or float.
        labels: (N,) int64 noisy labels.
        num_classes: K.
        warmup: Epochs of cross-entropy before the loss, at least 1.
        options: Those of `fdiv_noisy.estimate`, such as `probs`, `make_model` or `seed`.

    Returns:
        The loss, which counts the labels to end its warm-up by itself, and the report of what was found, which prints
        readably.

    Example:
        >>> criterion, report = auto_loss(images, labels, 10)  # doctest: +SKIP
    """
    report = estimate(inputs, labels, num_classes, refine=False, **options)
    return choose_loss(report, class_prior(labels, num_classes), warmup=warmup), report


def choose_loss(report: NoiseReport, prior: Tensor, *, warmup: int = 1) -> WarmUp:
    """The loss for the noise of a report, after `warmup` epochs of cross-entropy.

    Sparse noise takes `PairConditionalLoss`, which needs the pairs only. Uniform noise takes the KL loss with its exact
    product, uncorrected: it is nearly robust by itself, and an estimate from few labels costs more than the correction
    gains. General noise takes the same loss corrected for the estimated matrix, and clean labels cross-entropy.

    Args:
        report: What `fdiv_noisy.estimate` found.
        prior: (K,) shares of the noisy labels.
        warmup: Epochs of cross-entropy, at least 1.
    """
    if warmup < 1:
        raise ValueError(f"warmup must be at least 1, got {warmup}: from scratch a class may never be picked up")
    criterion: nn.Module
    if report.structure == "clean":
        criterion = nn.CrossEntropyLoss()
    elif report.structure == "sparse":
        criterion = PairConditionalLoss(report.pairs, prior)
    else:
        transition = report.transition if report.structure == "general" else None
        criterion = FDivergenceLoss("kl", product="exact", prior=prior, transition=transition)
    return WarmUp(nn.CrossEntropyLoss(), criterion, warmup, samples=report.n)
