"""Noisy labels from clean ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdiv_noisy.transition import Transition, as_matrix, check_classes


def corrupt(
    labels: Tensor, transition: Transition, *, method: str = "sampled", generator: torch.Generator | None = None
) -> Tensor:
    """Labels with class-dependent noise.

    Args:
        labels: (...) int64 clean classes in 0..K-1.
        transition: The noise model or its (K, K) row-stochastic matrix.
        method: `sampled` draws every label independently from its row. `exact` flips just
            $n_i T_{ij}$ labels of class i to j, rounded by largest remainders so that each row's counts sum to
            $n_i$; only which samples flip is random. The published label files are of this kind.
        generator: Source of the randomness, on any device.

    Returns:
        (...) int64 noisy labels on the labels' device.

    Raises:
        ValueError: The method is unknown, or labels are no classes of the transition.
    """
    matrix = as_matrix(transition).to(labels.device, torch.float64)
    check_classes(labels, matrix.shape[0])
    flat = labels.flatten()
    if method == "sampled":
        noisy = _sampled(flat, matrix, generator)
    elif method == "exact":
        noisy = _exact(flat, matrix, generator)
    else:
        raise ValueError(f"unknown method {method!r}: expected sampled or exact")
    return noisy.view(labels.shape)


def instance_dependent(
    features: Tensor,
    labels: Tensor,
    rate: float,
    num_classes: int,
    *,
    spread: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Labels whose chance of a flip, and where to, depends on the sample (Xia et al. 2020, appendix, algorithm 2).

    Sample n flips with chance $q_n$, drawn from a normal of standard deviation `spread` truncated to [0, 1], whose
    location is such that the mean after the truncation is `rate` (the authors' code puts the location at `rate`, for a
    few more wrong labels), to class $j \\ne y_n$ with chance proportional to $\\exp(x_n^T w_{y_n j})$, where w is a
    random normal projection of each class. The larger the features' norm, the more the flips of a class agree on one
    target: standardise the features as for training.

    Args:
        features: (N, ...) floats.
        labels: (N,) int64 clean classes in 0..K-1.
        rate: Mean share of wrong labels in [0, 1].
        num_classes: K.
        spread: Standard deviation of the per-sample rate before the truncation, > 0; at most four times the distance of
            `rate` from 0 and 1 is used, as the truncated normal can come no nearer to them.
        generator: Source of the randomness, on any device.

    Returns:
        (N,) int64 noisy labels.

    Raises:
        ValueError: Shapes do not belong together, or labels or rates are out of range.
    """
    check_classes(labels, num_classes)
    if labels.ndim != 1 or features.shape[:1] != labels.shape or not features.is_floating_point():
        raise ValueError(
            "features must be floats of shape (N, ...) and labels int64 of shape (N,), "
            f"got {features.dtype} {tuple(features.shape)} and {labels.dtype} {tuple(labels.shape)}"
        )
    if not 0 <= rate <= 1 or spread <= 0:
        raise ValueError(f"rate must be in [0, 1] and spread > 0, got {rate} and {spread}")
    x = features.flatten(1).to(torch.float32)
    spread = min(spread, 4 * min(rate, 1 - rate))
    if spread == 0:
        flip = torch.full_like(labels, rate, dtype=torch.float64)
    else:
        flip = _truncated_normal(labels, _location(rate, spread), spread, generator)
    noisy = labels.clone()
    for c in range(num_classes):  # one projection in memory at a time: all would be K * K * the features
        rows = (labels == c).nonzero()[:, 0]
        projection = _draw(torch.randn, (x.shape[1], num_classes), x.device, generator)
        scores = x[rows] @ projection
        scores[:, c] = -math.inf
        chances = flip[rows, None] * scores.double().softmax(1)
        chances[:, c] = 1 - flip[rows]
        noisy[rows] = _choose(chances.cumsum(1), _uniform01(rows, generator)[:, None])[:, 0]
    return noisy


def _sampled(labels: Tensor, matrix: Tensor, generator: torch.Generator | None) -> Tensor:
    k = matrix.shape[0]
    levels = matrix.cumsum(1)
    levels = levels / levels[:, -1:]
    steps = (levels + torch.arange(k, device=labels.device)[:, None]).flatten()  # row i climbs from i to i + 1
    return _choose(steps, _uniform01(labels, generator) + labels) - labels * k


def _exact(labels: Tensor, matrix: Tensor, generator: torch.Generator | None) -> Tensor:
    k = matrix.shape[0]
    counts = _largest_remainders(matrix / matrix.sum(1, keepdim=True), torch.bincount(labels, minlength=k))
    shuffled = _draw(torch.randperm, labels.numel(), labels.device, generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    targets = torch.arange(k, device=labels.device).repeat(k).repeat_interleave(counts.flatten())
    return torch.empty_like(labels).scatter_(0, by_class, targets)


def _largest_remainders(shares: Tensor, totals: Tensor) -> Tensor:
    """Integers (K, K) nearest to `shares * totals` whose rows sum to `totals` (K,); rows of `shares` sum to 1."""
    exact = shares * totals[:, None]
    floors = exact.floor()
    missing = totals - floors.sum(1).long()
    rank = (exact - floors).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return floors.long() + (rank < missing[:, None])


def _truncated_normal(like: Tensor, mean: float, deviation: float, generator: torch.Generator | None) -> Tensor:
    """Float64 draws (N,) of a normal truncated to [0, 1], by its inverse distribution function."""
    root2 = math.sqrt(2.0)
    low, high = (math.erf((edge - mean) / (deviation * root2)) for edge in (0.0, 1.0))
    u = low + (high - low) * _uniform01(like, generator)
    return (mean + deviation * root2 * torch.erfinv(u)).clamp(0.0, 1.0)


def _location(mean: float, deviation: float) -> float:
    """Where a normal of this standard deviation must lie for its truncation to [0, 1] to have this mean, in (0, 1)."""
    if mean > 0.5:
        return 1 - _location(1 - mean, deviation)
    low, high = mean - 8 * deviation, mean
    for _ in range(60):
        middle = (low + high) / 2
        if _truncated_mean(middle, deviation) < mean:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _truncated_mean(location: float, deviation: float) -> float:
    a, b = -location / deviation, (1 - location) / deviation
    density = math.exp(-a * a / 2) - math.exp(-b * b / 2)
    mass = (math.erfc(a / math.sqrt(2.0)) - math.erfc(b / math.sqrt(2.0))) / 2
    return location + deviation * density / (math.sqrt(2 * math.pi) * mass)


def _choose(levels: Tensor, u: Tensor) -> Tensor:
    """The first place whose level exceeds u; never one of zero chance, as u has 24 bits and the levels 53."""
    return torch.searchsorted(levels, u, right=True).clamp_max(levels.shape[-1] - 1)


def _uniform01(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return _draw(torch.rand, like.shape, like.device, generator).double()


def _draw(make, size, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """`make(size)` on the generator's device, moved to `device`, so that the labels' device changes no draw."""
    where = device if generator is None else generator.device
    return make(size, generator=generator, device=where).to(device)
