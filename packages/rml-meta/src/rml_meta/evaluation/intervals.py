"""Confidence intervals of means."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def student_t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees of freedom stays below with `probability`, in (0.5, 1).

    By scipy where that is installed, as it is for the commands; the library alone needs torch only, and finds it by
    bisection to about 1e-10.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"expected a probability in (0.5, 1) and freedom >= 1, got {probability} and {freedom}")
    try:
        from scipy.special import stdtrit
    except ModuleNotFoundError:
        return bisected_quantile(probability, freedom)
    return float(stdtrit(freedom, probability))


def bisected_quantile(probability: float, freedom: int) -> float:
    """`student_t_quantile` by bisection on the distribution function, an integral of powers of the cosine."""
    # with t = sqrt(v) tan(a) the density becomes c cos(a)^(v - 1)
    log_c = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    steps = torch.linspace(0, 1, 4001, dtype=torch.float64)
    simpson = torch.full_like(steps, 2.0)
    simpson[1::2] = 4.0
    simpson[[0, -1]] = 1.0

    def below(angle: float) -> float:
        integral = (simpson * (steps * angle).cos().pow(freedom - 1)).sum() * angle / (3 * (len(steps) - 1))
        return 0.5 + math.exp(log_c) * float(integral)

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def mean_interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values (n,) and the half width of its interval: Student's t, variance over n - 1.

    Raises:
        ValueError: There are fewer than two values.
    """
    if values.dim() != 1 or len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values in one dimension, got {tuple(values.shape)}")
    values = values.double()
    error = float(values.std(correction=1)) / math.sqrt(len(values))
    return float(values.mean()), student_t_quantile((1 + level) / 2, len(values) - 1) * error
