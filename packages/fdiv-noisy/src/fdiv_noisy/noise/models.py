"""The usual label-noise models of the literature as transition models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fdiv_noisy.transition import Sparse, Uniform

AIRPLANE, AUTOMOBILE, BIRD, CAT, DEER, DOG, HORSE, TRUCK = 0, 1, 2, 3, 4, 5, 7, 9


def uniform(rates: Sequence[float] | Tensor) -> Uniform:
    """Uniform off-diagonal noise: any other class flips to class j with chance `rates[j]`.

    Args:
        rates: (K,) chances >= 0 that sum to less than 1.
    """
    return Uniform(torch.as_tensor(rates, dtype=torch.get_default_dtype()))


def sparse(flips: Mapping[tuple[int, int], tuple[float, float]], num_classes: int) -> Sparse:
    """Noise that flips labels inside disjoint pairs of classes only.

    Args:
        flips: `{(i, j): (a, b)}`: i becomes j with chance a, j becomes i with chance b, and a + b < 1.
        num_classes: K; classes in no pair keep their label.
    """
    pairs = torch.tensor(list(flips), dtype=torch.int64).reshape(-1, 2)
    rates = torch.tensor(list(flips.values()), dtype=torch.get_default_dtype()).reshape(-1, 2)
    return Sparse(pairs, rates, num_classes)


def random(p: float, num_classes: int) -> Uniform:
    """With chance p a label is drawn anew from all K classes: $T = (1 - p) I + p/K$.

    The drawn class may be the true one, so the share of wrong labels is p (K - 1) / K. Also known as symmetric noise.

    Args:
        p: Chance in [0, 1).
        num_classes: K.
    """
    _check_rate("p", p, below=1.0)
    return uniform([p / num_classes] * num_classes)


def pair_flip(rate: float, num_classes: int) -> Tensor:
    """Class i becomes class i + 1 (cyclically) with chance `rate` in [0, 1); gives the (K, K) matrix.

    This is a cycle through all classes, not disjoint pairs, so it is no `fdiv_noisy.Sparse` noise.
    """
    _check_rate("rate", rate, below=1.0)
    eye = torch.eye(num_classes)
    return (1 - rate) * eye + rate * eye.roll(1, 1)


def cifar10_asymmetric(rate: float) -> Sparse:
    """The asymmetric CIFAR-10 noise of Patrini et al. 2017, section 5: flips between classes that look alike.

    Truck becomes automobile, bird airplane, deer horse, cat dog and dog cat, each with chance `rate` in [0, 0.5).
    """
    _check_rate("rate", rate, below=0.5)
    one_way, both_ways = (rate, 0.0), (rate, rate)
    flips = {(TRUCK, AUTOMOBILE): one_way, (BIRD, AIRPLANE): one_way, (DEER, HORSE): one_way, (CAT, DOG): both_ways}
    return sparse(flips, num_classes=10)


def _check_rate(name: str, rate: float, below: float) -> None:
    if not 0 <= rate < below:
        raise ValueError(f"{name} must be in [0, {below:g}), got {rate}")
