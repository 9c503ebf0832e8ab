"""What every estimator asks of its input."""

from __future__ import annotations

import torch
from torch import Tensor

from fdiv_noisy.transition import check_classes


def check_several(num_classes: int) -> None:
    """Raise ValueError where there is one class alone."""
    if num_classes < 2:
        raise ValueError("there is one class: labels can be wrong only where there are two or more")


def check_probabilities(probs: Tensor, labels: Tensor | None = None) -> None:
    """Raise ValueError unless `probs` (N, K) are probabilities and `labels` (N,) int64 are of the same samples."""
    if probs.ndim != 2 or not probs.is_floating_point() or probs.shape[0] == 0:
        raise ValueError(f"probs must be floats of shape (N, K) with N >= 1, got {probs.dtype} {tuple(probs.shape)}")
    tolerance = max(1e-3, probs.shape[1] * torch.finfo(probs.dtype).eps)  # half precision rounds each entry
    if not bool((probs >= 0).all()) or float((probs.float().sum(1) - 1).abs().max()) > tolerance:
        raise ValueError("probs must be >= 0 with rows that sum to 1: give probabilities, not logits")
    if labels is not None:
        if labels.shape != probs.shape[:1]:
            raise ValueError(f"labels must have shape ({probs.shape[0]},), got {tuple(labels.shape)}")
        check_classes(labels, probs.shape[1])
