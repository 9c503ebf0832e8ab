"""The noise of the label files published with Wei and Liu 2021, by name.

The rates are those found in the files. For MNIST and Fashion-MNIST they are higher than the paper's text says: the
uniform levels make 42 % and 74 % of the labels wrong (text: 20 % and 55 %), the sparse ones 25 % and 45 % (20 %, 40 %).
"""

from __future__ import annotations

from fdiv_noisy.noise.models import random, sparse, uniform
from fdiv_noisy.transition import Sparse, Uniform

LEVELS = ("sparse-low", "sparse-high", "uniform-low", "uniform-high", "random-low", "random-high")
"""The models in the order of the files `..._r0_1.pt` to `..._r0_6.pt`."""

_SPARSE_PAIRS = {
    "mnist": [(0, 1), (2, 3), (4, 8), (7, 5), (9, 6)],
    "cifar-10": [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)],
}
_SPARSE_RATES = {
    "mnist": {"low": (0.3, 0.2), "high": (0.7, 0.2)},
    "cifar-10": {"low": (0.3, 0.1), "high": (0.6, 0.2)},
}
_UNIFORM_RATES = {
    "mnist": {
        "low": (0.050, 0.045, 0.047, 0.055, 0.053, 0.022, 0.068, 0.054, 0.056, 0.020),
        "high": (0.080, 0.075, 0.090, 0.085, 0.070, 0.082, 0.077, 0.091, 0.092, 0.080),
    },
    "cifar-10": {
        "low": (0.020, 0.030, 0.010, 0.023, 0.017, 0.022, 0.021, 0.018, 0.019, 0.020),
        "high": (0.05, 0.07, 0.04, 0.05, 0.06, 0.04, 0.06, 0.07, 0.08, 0.07),
    },
}
_RANDOM_P = {
    "mnist": {"low": 0.2, "high": 0.7},
    "cifar-10": {"low": 0.5, "high": 0.7},
    "cifar-100": {"low": 0.2, "high": 0.5},
}
_SAME_NOISE = {"fashion-mnist": "mnist", "cifar10": "cifar-10", "cifar100": "cifar-100"}


def preset(name: str, dataset: str) -> Uniform | Sparse:
    """The noise model of one published label file.

    Args:
        name: One of `LEVELS`, such as `"sparse-high"`.
        dataset: `mnist`, `fashion-mnist`, `cifar-10`, or `cifar-100`, which has the random levels only: its published
            sparse and uniform noise was drawn at random, so only the files themselves hold it. `cifar10` and
            `cifar100` are understood too.

    Raises:
        ValueError: There is no such noise.
    """
    key = _SAME_NOISE.get(dataset, dataset)
    if key not in _RANDOM_P:
        raise ValueError(f"no published noise for {dataset!r}: expected one of {', '.join([*_RANDOM_P, *_SAME_NOISE])}")
    if name not in LEVELS:
        raise ValueError(f"unknown noise {name!r}: expected one of {', '.join(LEVELS)}")
    kind, level = name.split("-")
    if kind == "random":
        return random(_RANDOM_P[key][level], num_classes=100 if key == "cifar-100" else 10)
    if key not in _UNIFORM_RATES:
        raise ValueError(f"{dataset} has the levels random-low and random-high only, got {name!r}")
    if kind == "uniform":
        return uniform(_UNIFORM_RATES[key][level])
    return sparse(dict.fromkeys(_SPARSE_PAIRS[key], _SPARSE_RATES[key][level]), num_classes=10)
