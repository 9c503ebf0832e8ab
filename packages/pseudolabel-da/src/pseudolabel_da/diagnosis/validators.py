"""Scores of a model without target labels, to choose an epoch or a setting by. Higher is better in all.

Choosing by the target test set, as several published programs do, measures the choice and not the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def accuracy(probs: Tensor, labels: Tensor) -> Tensor:
    """Share of samples whose most probable class is their label, 0-dim float64; NaN rows are wrong, none gives NaN.

    Args:
        probs: (N, K); logits do as well.
        labels: (N,).
    """
    right = (probs.argmax(1) == labels) & ~probs.isnan().any(1)
    return right.double().mean()


def entropy(probs: Tensor) -> Tensor:
    """Entropy (...,) in nats of distributions (..., K), with 0 log 0 = 0."""
    return -torch.xlogy(probs, probs).sum(-1)


def mean_entropy(probs: Tensor) -> Tensor:
    """Mean entropy in nats of probabilities (N, K), 0-dim in [0, log K]; lower means surer, right or wrong."""
    return entropy(probs).mean()


def information_maximization(probs: Tensor) -> Tensor:
    """Entropy of the mean prediction less the mean entropy, of (N, K): sure and spread over classes, in [0, log K]."""
    return entropy(probs.mean(0)) - mean_entropy(probs)


def soft_neighborhood_density(features: Tensor, temperature: float = 0.05, chunk: int = 1024) -> Tensor:
    """Mean entropy of each sample's soft neighbourhood (Saito et al. 2021, eq. 2-4): high where clusters are dense.

    The neighbourhood is the softmax, over all other samples, of cosine similarity divided by the temperature.

    Args:
        features: (N, D); the paper takes the probabilities.
        temperature: Above 0.
        chunk: Rows of the (N, N) similarities held at a time.

    Returns:
        The density, 0-dim, in [0, log(N - 1)].

    Raises:
        ValueError: There are fewer than two samples, or the temperature is not above 0.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be (N, D) with N of at least 2, got {tuple(features.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    unit = torch.nn.functional.normalize(features)
    total = features.new_zeros(())
    for start in range(0, len(unit), chunk):
        similarity = unit[start : start + chunk] @ unit.T / temperature
        rows = torch.arange(len(similarity), device=unit.device)
        similarity[rows, rows + start] = -math.inf
        total = total + entropy(similarity.softmax(1)).sum()
    return total / len(unit)


TARGET_VALIDATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "information_maximization": information_maximization,
    "soft_neighborhood_density": soft_neighborhood_density,
    "negative_entropy": lambda probs: -mean_entropy(probs),
}
"""Validators of the probabilities (N, K) on the unlabelled target, by name; beside them, `source_accuracy`."""
