"""Noisy training sets that the benchmarks share: drawn ones, and images with published and human noise."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from fdiv_noisy.estimation import Fit, cross_fit_probabilities
from fdiv_noisy.noise import corrupt, instance_dependent, load_labels
from robustvision_core import data as sets
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from benchmarks.common import data_root

T = TypeVar("T")
DONE = pathlib.Path("runs/benchmarks/fdiv_noisy/problems")
IMAGES = {"cifar-10": 5_000, "mnist": 6_000, "fashion-mnist": 6_000}


@dataclass(frozen=True)
class Problem:
    """Noisy training samples, and clean test samples for the score."""

    inputs: Tensor
    clean: Tensor
    noisy: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    num_classes: int


@dataclass(frozen=True)
class Blobs:
    """Normal classes around random centres."""

    noise: str
    classes: int = 10
    samples: int = 4000
    spread: float = 1.0
    imbalance: float = 1.0
    epochs: int = 20


BLOBS = {
    "clean": Blobs("uniform:0"),
    "clean, overlapping": Blobs("uniform:0", spread=0.5),
    "clean, 300 samples": Blobs("uniform:0", samples=300),
    "uniform .2": Blobs("uniform:.2"),
    "uniform .4": Blobs("uniform:.4"),
    "uniform .6": Blobs("uniform:.6"),
    "uniform .3, overlapping": Blobs("uniform:.3", spread=0.5),
    "uniform .4, 300 samples": Blobs("uniform:.4", samples=300),
    "uniform .4, 10 to 1": Blobs("uniform:.4", imbalance=10),
    "uniform .4, K = 2": Blobs("uniform:.4", 2, 2000, 0.5),
    "uniform .4, K = 3": Blobs("uniform:.4", 3, 3000, 0.6),
    "uniform .4, K = 50": Blobs("uniform:.4", 50, 10_000),
    "uniform .4, K = 100": Blobs("uniform:.4", 100, 10_000),
    "sparse .3/.2": Blobs("sparse:.3/.2"),
    "sparse .7/.2": Blobs("sparse:.7/.2"),
    "sparse .7/.2, overlapping": Blobs("sparse:.7/.2", spread=0.6),
    "sparse .7/.2, 10 to 1": Blobs("sparse:.7/.2", imbalance=10),
    "sparse .4/.3, K = 50": Blobs("sparse:.4/.3", 50, 10_000),
    "two pairs .7/.2": Blobs("few:.7/.2"),
    "cyclic .3": Blobs("cyclic:.3"),
    "one-way .4": Blobs("one-way:.4"),
    "groups of 5, .4": Blobs("groups5:.4"),
    "groups of 3, .4": Blobs("groups3:.4", 9),
    "groups of 5, .5, K = 100": Blobs("groups5:.5", 100, 10_000),
    "one sink .4": Blobs("sink:.4"),
    "pairs .3/.3 and uniform .2": Blobs("backed:.3/.2"),
    "instance-dependent .3": Blobs("instance:.3"),
}
CIFAR = ("clean", *(f"r0_{i}" for i in range(1, 7)), "worse_label", "aggre_label", "random_label1")
GREY = ("r0_1", "r0_2", "r0_3", "r0_4", "r0_5", "r0_6")


def matrix(noise: str, k: int) -> Tensor:
    """The transition matrix (K, K) that a name of `BLOBS` stands for."""
    kind, _, text = noise.partition(":")
    rates = [float(part) for part in text.split("/")]
    eye, rate = torch.eye(k), rates[0]
    if kind == "uniform":
        return eye * (1 - rate - rate / (k - 1)) + rate / (k - 1)
    if kind == "cyclic":
        return eye * (1 - rate) + eye.roll(1, 1) * rate
    if kind == "sink":
        t = eye * (1 - rate)
        t[:, 0] += rate
        return t
    if kind == "backed":
        return matrix(f"sparse:{rate}/{rate}", k) @ matrix(f"uniform:{rates[1]}", k)
    if kind.startswith("groups"):
        size = int(kind.removeprefix("groups"))
        return torch.block_diag(*[matrix(f"uniform:{rate}", size)] * (k // size))
    flips = {(i, i + 1): (rate, rates[-1]) for i in range(0, k - 1, 2)}
    if kind == "few":
        flips = {(0, 1): (rate, rates[1]), (2, 3): (rate, rates[1])}
    if kind == "one-way":
        flips = {(9, 1): (rate, 0.0), (2, 0): (rate, 0.0), (4, 7): (rate, 0.0), (3, 5): (rate, rate)}
    for (i, j), (a, b) in flips.items():
        eye[i, i], eye[i, j], eye[j, j], eye[j, i] = 1 - a, a, 1 - b, b
    return eye


def draw(blobs: Blobs, seed: int) -> Problem:
    """A problem of normal classes."""
    generator = torch.Generator().manual_seed(1000 + seed)
    centres = torch.randn(blobs.classes, 20, generator=generator) * blobs.spread
    shares = blobs.imbalance ** (-torch.arange(blobs.classes) / max(1, blobs.classes - 1))

    def sample(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(shares, n, True, generator=generator)
        return centres[labels] + torch.randn(n, 20, generator=generator), labels

    (inputs, clean), (test_inputs, test_labels) = sample(blobs.samples), sample(4000)
    if blobs.noise.startswith("instance"):
        rate = float(blobs.noise.partition(":")[2])
        noisy = instance_dependent(inputs, clean, rate, blobs.classes, generator=generator)
    else:
        noisy = corrupt(clean, matrix(blobs.noise, blobs.classes), generator=generator)
    return Problem(inputs, clean, noisy, test_inputs, test_labels, blobs.classes)


def images(name: str, noise: str, seed: int) -> Problem:
    """Images (the seed says which) with published or human noise, CIFAR-10's at 16x16."""
    train, test = (sets.load(name, part) for part in ("train", "test"))
    root = data_root()
    assert root is not None
    labels = train.labels
    if noise.startswith("r0"):
        folder, stem = {
            "mnist": ("MNIST", "MNIST"),
            "fashion-mnist": ("Fashion_MNIST", "Fashion"),
            "cifar-10": ("CIFAR-10", "CIFAR10"),
        }[name]
        labels = load_labels(root / f"noise-labels/fdiv/{folder}/{stem}_noise_{noise}.pt")
    elif noise != "clean":
        labels = load_labels(root / "noise-labels/cifar-10n/CIFAR-10_human.pt", noise)
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: IMAGES[name]]

    def prepare(pixels: Tensor) -> Tensor:
        return avg_pool2d(pixels.float() / 255, 2).sub(0.47 if name == "cifar-10" else 0.2).div(0.25)

    return Problem(
        prepare(train.images[rows]),
        train.labels[rows],
        labels[rows],
        prepare(test.images[::2]),
        test.labels[::2],
        10,
    )


def mlp(inputs: int, classes: int) -> nn.Module:
    """For blobs."""
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, classes))


def convolutional(channels: int, classes: int) -> nn.Module:
    """Three convolutions with batch norm, for images of 14 to 16 pixels."""
    parts: list[nn.Module] = []
    for i, o in ((channels, 32), (32, 64), (64, 128)):
        parts += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*parts[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def make_network(problem: Problem) -> Callable[[], nn.Module]:
    """Makes an untrained network for the samples of a problem."""
    if problem.inputs.dim() == 4:
        return functools.partial(convolutional, problem.inputs.shape[1], problem.num_classes)
    return functools.partial(mlp, problem.inputs.shape[1], problem.num_classes)


def problems() -> dict[str, Callable[[int], Problem]]:
    """Every problem by name: its maker, from a seed; images where there is real data."""
    found: dict[str, Callable[[int], Problem]] = {
        f"blobs {name}": functools.partial(draw, blobs) for name, blobs in BLOBS.items()
    }
    if data_root() is not None:
        for noise in CIFAR:
            found[f"cifar-10 {noise}"] = functools.partial(images, "cifar-10", noise)
        for name in ("mnist", "fashion-mnist"):
            for noise in GREY:
                found[f"{name} {noise}"] = functools.partial(images, name, noise)
    return found


def posteriors(name: str, problem: Problem, seed: int) -> Tensor:
    """Out-of-fold posteriors (N, K) of the noisy labels."""
    options: dict[str, Any] = {"seed": seed}
    if problem.inputs.dim() == 4:
        options |= {"make_model": make_network(problem), "fit": Fit(epochs=12)}
    return kept(
        f"{slug(name, seed)}-posteriors",
        lambda: cross_fit_probabilities(problem.inputs, problem.noisy, problem.num_classes, **options),
    )


def kept(name: str, compute: Callable[[], T]) -> T:
    """What `compute` gives, from its file where it was computed before."""
    path = DONE / f"{name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = compute()
        torch.save(found, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return torch.load(path, weights_only=True)


def slug(name: str, seed: int) -> str:
    """A file's name for a problem."""
    return f"{name.replace(' ', '_').replace('/', '-')}-{seed}"
