"""What `--augment auto` chooses on shifts that it was not made on, beside every fixed augmentation."""

from __future__ import annotations

import functools
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from pseudolabel_da import IncrementalPseudoLabeler, choose_augment
from pseudolabel_da.networks import SmallCNN
from robustvision_core.data import load, load_domains
from torch import Tensor, nn

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.pseudolabel_da._battery import SIDE, Set, cut, done_in, keep, tinted

QUESTION = "Which augmentation does `auto` choose without target labels, and how good are it and the others?"
LONG = True
SEEDS = [30, 31]
SIZE, PRETRAIN, EPOCHS = 2000, 12, 10
POLICIES = ("strong", "photo", "recolor", "jitter", "none")
DONE = pathlib.Path("runs/benchmarks/pseudolabel_da/augment_auto.jsonl")


def shifts(seed: int) -> Iterator[tuple[str, list[Set]]]:
    """Name, and source, target and test images of the target."""
    real = ("mnist-mnistm", "fashion-fashionm") if data_root() is not None else ()
    for name in ("digits-shift", *real):
        options: dict[str, Any] = {} if name in real else {"strength": 1.0}
        pair = load_domains(name, seed=seed, **options)
        parts = (pair.source_train, pair.target_train, pair.target_test)
        yield name if name in real else f"{name}, strength 1", [cut(x, SIZE, seed + i) for i, x in enumerate(parts)]
    if real:
        train, test = load("cifar-10", "train"), load("cifar-10", "test")
        dark = (cut(train, SIZE, seed + 500), cut(test, SIZE, seed))
        yield "cifar-10, dusk", [cut(train, SIZE, seed), *((tinted(images), labels) for images, labels in dark)]


def network(seed: int) -> nn.Module:
    """A new small network."""
    torch.manual_seed(seed)
    return SmallCNN(3, SIDE, 10).to(memory_format=torch.channels_last)


def run(source: Set, target: Tensor, test: Set, seed: int) -> dict[str, Any]:
    """The choice, and the accuracy on test images after adaptation with each augmentation."""
    recipe = functools.partial(IncrementalPseudoLabeler.balanced, seed=seed, lr=2e-3)
    settings, found = recipe(network(seed)).settings, {}
    choice = choose_augment(lambda: network(seed), source, target, settings, pretrain=PRETRAIN, epochs=EPOCHS)
    for name in POLICIES:
        labeler = recipe(network(seed), augment=name)
        labeler.pretrain(source, epochs=PRETRAIN)
        labeler.fit(source, None, target, epochs=EPOCHS)
        found[name] = float((labeler.probabilities(test[0]).argmax(1) == test[1]).double().mean())
    return choice._asdict() | {"target": found}


def cells() -> list[dict[str, Any]]:
    """Every cell, those that are done already read back."""
    torch.set_num_threads(1)
    found = done_in(DONE)
    done = {(cell["shift"], cell["seed"]) for cell in found}
    for seed in SEEDS:
        for name, (source, (target, _), test) in shifts(seed):
            if (name, seed) not in done:
                found.append({"shift": name, "seed": seed} | run(source, target, test, seed))
                keep(DONE, found[-1:])
    return found


def table(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each shift, and for all, with each augmentation and with what was chosen."""
    for shift in dict.fromkeys([*(cell["shift"] for cell in found), "all"]):
        own = [cell for cell in found if shift in ("all", cell["shift"])]
        for name in (*POLICIES, "auto"):
            taken = [cell["name"] if name == "auto" else name for cell in own]
            pairs = list(zip(own, taken, strict=True))
            yield {
                "shift": shift,
                "augment": name,
                "target (%)": mean_and_spread([100 * cell["target"][augment] for cell, augment in pairs]),
                "below the best": 100 * statistics.mean(max(c["target"].values()) - c["target"][a] for c, a in pairs),
                "reverse validation (%)": 100 * statistics.mean(cell["reverse"][augment] for cell, augment in pairs),
                "diversity (%)": 100 * statistics.mean(cell["diversity"][augment] for cell, augment in pairs),
                "kept": sum(augment in cell["kept"] for cell, augment in pairs),
                "chosen": "/".join(taken) if name == "auto" else "",
            }


def main() -> None:
    """Run every cell and write the table."""
    found = cells()
    note = (
        f"{SIZE} images of {SIDE} pixels a domain (digits: what there is), one small CNN, the recipe for {PRETRAIN} + "
        f"{EPOCHS} epochs; target test accuracy (%), mean and standard deviation over seeds; below the "
        "best: points under the best augmentation of each seed; kept: in how many seeds reverse validation keeps it"
    )
    save(__file__, QUESTION, list(table(found)), note=note, seeds=SEEDS, cells=found)


if __name__ == "__main__":
    main()
