"""What `--augment auto` chooses on shifts that it was not made on, beside every fixed augmentation."""

from __future__ import annotations

import json
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
from benchmarks.pseudolabel_da._battery import SIDE, Set, cut, tinted

QUESTION = "Which augmentation does `auto` choose without target labels, and how good are it and the others?"
LONG = True
SEEDS = [30, 31]
SIZE, PRETRAIN, EPOCHS = 2000, 12, 10
POLICIES = ("strong", "photo", "recolor", "jitter", "none")
DONE = pathlib.Path("runs/benchmarks/pseudolabel_da/augment_auto.jsonl")


def shifts(seed: int) -> Iterator[tuple[str, Set, Set, Set]]:
    """Name, source, target and test images of the target."""
    names = {"digits-shift, strength 1": ("digits-shift", {"strength": 1.0})}
    if data_root() is not None:
        names |= {"mnist-mnistm": ("mnist-mnistm", {}), "fashion-fashionm": ("fashion-fashionm", {})}
    for name, (data, options) in names.items():
        pair = load_domains(data, seed=seed, **options)
        parts = (pair.source_train, pair.target_train, pair.target_test)
        yield name, *(cut(part, SIZE, seed + place) for place, part in enumerate(parts))
    if data_root() is not None:
        train, test = load("cifar-10", "train"), load("cifar-10", "test")
        source, target, held = cut(train, SIZE, seed), cut(train, SIZE, seed + 500), cut(test, SIZE, seed)
        yield "cifar-10, dusk", source, *((tinted(images), labels) for images, labels in (target, held))


def network(seed: int) -> nn.Module:
    """A new small network."""
    torch.manual_seed(seed)
    return SmallCNN(3, SIDE, 10).to(memory_format=torch.channels_last)


def labeler(seed: int, augment: str) -> IncrementalPseudoLabeler:
    """The recipe with an augmentation."""
    return IncrementalPseudoLabeler.balanced(network(seed), seed=seed, lr=2e-3, augment=augment)


def accuracy_with(augment: str, source: Set, target: Tensor, test: Set, seed: int) -> float:
    """On the target's test images, after adaptation with a fixed augmentation."""
    adapted = labeler(seed, augment)
    adapted.pretrain(source, epochs=PRETRAIN)
    adapted.fit(source, None, target, epochs=EPOCHS)
    return float((adapted.probabilities(test[0]).argmax(1) == test[1]).double().mean())


def run(source: Set, target: Tensor, test: Set, seed: int) -> dict[str, Any]:
    """The choice, and what every augmentation comes to."""
    settings = labeler(seed, "none").settings
    choice = choose_augment(lambda: network(seed), source, target, settings, pretrain=PRETRAIN, epochs=EPOCHS)
    return choice._asdict() | {"target": {name: accuracy_with(name, source, target, test, seed) for name in POLICIES}}


def cells() -> list[dict[str, Any]]:
    """Every cell, those that are done already read back."""
    torch.set_num_threads(1)
    DONE.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    done = {(cell["shift"], cell["seed"]) for cell in found}
    for seed in SEEDS:
        for name, source, (target, _), test in shifts(seed):
            if (name, seed) in done:
                continue
            found.append({"shift": name, "seed": seed} | run(source, target, test, seed))
            with DONE.open("a") as lines:
                lines.write(json.dumps(found[-1]) + "\n")
            print(found[-1], flush=True)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each shift and augmentation, and one for what was chosen."""
    for shift in dict.fromkeys(cell["shift"] for cell in found):
        own = [cell for cell in found if cell["shift"] == shift]
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
