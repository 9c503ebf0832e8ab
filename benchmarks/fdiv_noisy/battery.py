"""The chooser beside the plain losses: 26 drawn problems, and images with published and human noise."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fdiv_noisy import FDivergenceLoss, GCELoss, WarmUp, auto_loss, class_prior
from fdiv_noisy.estimation import Fit
from fdiv_noisy.noise import corrupt, instance_dependent, load_labels
from robustvision_core import data as sets
from robustvision_core.run.files import write_json
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from benchmarks.common import data_root, save

QUESTION = "Does `auto_loss` ever cost accuracy beside the best of cross-entropy, GCE and KL, and what does it gain?"
LONG = True
SEEDS = [0, 1]
DONE = pathlib.Path("runs/benchmarks/fdiv_noisy/battery")
IMAGES = 12_000
IMAGE_EPOCHS = 10
BATCH = 128


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
    """12,000 images (the seed says which) with published or human noise, CIFAR-10's at 16x16."""
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
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:IMAGES]

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
    return nn.Sequential(*parts[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def train(problem: Problem, criterion: nn.Module, seed: int, epochs: int) -> float:
    """Clean test accuracy (%) at the end of a training; images with flips and one cycle of the learning rate."""
    torch.manual_seed(seed)
    pictures = problem.inputs.dim() == 4
    k, n = problem.num_classes, len(problem.inputs)
    model = convolutional(problem.inputs.shape[1], k) if pictures else mlp(problem.inputs.shape[1], k)
    optimizer = (SGD if pictures else ADAM)(model.parameters())
    steps = epochs * -(-n // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps) if pictures else None
    for _ in range(epochs):
        for rows in torch.randperm(n).split(BATCH):
            inputs = problem.inputs[rows]
            if pictures and problem.inputs.shape[1] == 3 and torch.rand(()) < 0.5:
                inputs = inputs.flip(3)
            optimizer.zero_grad()
            criterion(model(inputs), problem.noisy[rows]).backward()
            optimizer.step()
            if cycle:
                cycle.step()
    model.eval()
    with torch.no_grad():
        right = [
            (model(part).argmax(1) == labels).float().sum()
            for part, labels in zip(problem.test_inputs.split(1000), problem.test_labels.split(1000), strict=True)
        ]
    return 100 * float(sum(right)) / len(problem.test_labels)


def run_cell(name: str, make: Callable[[int], Problem], seed: int, epochs: int) -> dict[str, Any]:
    """One problem: each plain loss, and the chosen one; read from its file where it was run before."""
    path = DONE / f"{name.replace(' ', '_').replace('/', '-')}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    problem = make(seed)
    k, n = problem.num_classes, len(problem.inputs)
    steps = epochs * -(-n // BATCH)
    options: Mapping[str, Any] = {}
    if problem.inputs.dim() == 4:
        network = functools.partial(convolutional, problem.inputs.shape[1], k)
        options = {"make_model": network, "fit": Fit(epochs=12), "make_optimizer": SGD}
    started = time.process_time()
    chosen, report = auto_loss(problem.inputs, problem.noisy, k, seed=seed, steps=steps, batch_size=BATCH, **options)
    choosing = time.process_time() - started
    prior = class_prior(problem.noisy, k)
    plain = {
        "ce": nn.CrossEntropyLoss(),
        "gce": GCELoss(),
        "kl": WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("kl", product="exact", prior=prior), 1, samples=n),
    }
    scores = {loss: train(problem, criterion, seed, epochs) for loss, criterion in plain.items()}
    started = time.process_time()
    taken = report.choice.rpartition("taken: ")[2].partition(",")[0]
    # a plain loss that is taken is the same training but for its warm-up
    scores["auto"] = scores["ce"] if taken == "ce" else train(problem, chosen, seed, epochs)
    result = {
        "name": name,
        "seed": seed,
        "wrong": float((problem.clean != problem.noisy).float().mean()),
        "estimated": report.rate,
        "interval": report.interval,
        "structure": report.structure,
        "taken": taken,
        "scores": scores,
        "report": str(report),
        "seconds_to_choose": choosing,
        "seconds_of_a_training": time.process_time() - started if taken != "ce" else None,
    }
    write_json(path, result)
    print(name, seed, report.structure, taken, {loss: round(score, 1) for loss, score in scores.items()}, flush=True)
    return result


def cells() -> dict[str, tuple[Callable[[int], Problem], int]]:
    """Every problem by name: its maker, and the epochs of its training."""
    found: dict[str, tuple[Callable[[int], Problem], int]] = {
        f"blobs {name}": (functools.partial(draw, blobs), blobs.epochs) for name, blobs in BLOBS.items()
    }
    if data_root() is not None:
        for noise in CIFAR:
            found[f"cifar-10 {noise}"] = (functools.partial(images, "cifar-10", noise), IMAGE_EPOCHS)
        for name in ("mnist", "fashion-mnist"):
            for noise in GREY:
                found[f"{name} {noise}"] = (functools.partial(images, name, noise), IMAGE_EPOCHS)
    return found


def row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table, means over seeds."""

    def mean(loss: str) -> float:
        return sum(result["scores"][loss] for result in results) / len(results)

    regrets = [max(r["scores"][x] for x in ("ce", "gce", "kl")) - r["scores"]["auto"] for r in results]
    line = {"problem": name, "wrong (%)": round(100 * results[0]["wrong"], 1)}
    line["found (%)"] = "/".join(f"{100 * result['estimated']:.1f}" for result in results)
    line["structure"] = "/".join(dict.fromkeys(result["structure"] for result in results))
    line |= {loss: round(mean(loss), 1) for loss in ("ce", "gce", "kl", "auto")}
    line["taken"] = "/".join(result["taken"] for result in results)
    line["regret"] = "/".join(f"**{regret:.1f}**" if regret > 2 else f"{regret:.1f}" for regret in regrets)
    return line


def main() -> None:
    """Run every cell that was not run before, and write the table; a first argument names the cells to run."""
    wanted = sys.argv[1] if len(sys.argv) > 1 and sys.argv[0].endswith("battery.py") else ""
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for name, (make, epochs) in cells().items():
            if name.startswith(wanted):
                results.setdefault(name, []).append(run_cell(name, make, seed, epochs))
    if wanted:
        return
    rows = [row(name, found) for name, found in results.items()]
    every = [
        max(result["scores"][x] for x in ("ce", "gce", "kl")) - result["scores"]["auto"]
        for found in results.values()
        for result in found
    ]
    note = (
        "clean test accuracy (%), means over seeds; regret: best of ce, gce and kl by the test set, less auto, by seed"
    )
    summary = {"mean_regret": sum(every) / len(every), "worst_regret": max(every), "cells": len(every)}
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, summary=summary)


if __name__ == "__main__":
    main()
