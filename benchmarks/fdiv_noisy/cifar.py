"""Tables 2 and 3 of Wei and Liu 2021 on CIFAR-10 with a small residual network, and human labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fdiv_noisy.cli.recipes import TrainConfig

from benchmarks.common import data_root, save
from benchmarks.fdiv_noisy._cells import run_cells

QUESTION = "Which loss learns CIFAR-10 from the published and from human labels, with one core for minutes a cell?"
LONG = True
SEEDS = [0]
EPOCHS = 6
# the columns in the order they are run: a stopped table keeps those that are whole
NOISES = {
    "clean": "none",
    "uniform high": "published:r0_4",
    "sparse high": "published:r0_2",
    "human, worse": "human:worse_label",
    "random (0.7)": "published:r0_6",
    "sparse low": "published:r0_1",
    "uniform low": "published:r0_3",
    "random (0.5)": "published:r0_5",
    "human, random 1": "human:random_label1",
}
PLAIN: dict[str, dict[str, Any]] = {
    "CE": {"loss": "ce"},
    "TV": {"loss": "tv"},
    "JS": {"loss": "js"},
    "KL": {"loss": "kl"},
    "GCE": {"loss": "gce"},
    "Peer": {"loss": "peer"},
}
# these train further networks on the noisy labels first: an estimate takes two, a race one for each of its losses
EXAMINING: dict[str, dict[str, Any]] = {
    "forward, T estimated": {"loss": "forward", "correction": "estimate"},
    "auto": {"loss": "auto"},
}
# a third of the epochs with cross-entropy first; the published code starts from 240 epochs of it
WARM = {f"{name} after CE": {**PLAIN[name], "warmup": 2} for name in ("TV", "JS", "KL")}
METHODS = PLAIN | WARM | EXAMINING
# the other columns have the plain losses
MORE = {"uniform high": WARM | EXAMINING, "sparse high": WARM | EXAMINING, "human, worse": EXAMINING}
BASE = replace(
    TrainConfig.PRESETS["cifar10"], network="resnet8", epochs=EPOCHS, warmup=0, precision="bf16", progress=False
)


def config_of(method: str, noise: str, seed: int) -> TrainConfig:
    """The settings of one cell."""
    spec = NOISES[noise]
    if spec.startswith("human"):
        spec = f"file:{data_root()}/noise-labels/cifar-10n/CIFAR-10_human.pt{spec.removeprefix('human')}"
    return replace(BASE, noise=spec, seed=seed, **METHODS[method])


def main() -> None:
    """Run column after column, and write the table after each."""
    if data_root() is None:
        return
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for noise in NOISES:
        cells = [(method, noise, seed) for method in PLAIN | MORE.get(noise, {}) for seed in SEEDS]
        found |= dict(zip(cells, run_cells([config_of(*cell) for cell in cells], workers=1), strict=True))
        write(found)


def write(found: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    """The table of the columns that there are."""
    heads = {noise: f"{noise} ({100 * cell['wrong_labels']:.0f} % wrong)" for (_, noise, _), cell in found.items()}
    rows = [
        {"method": method}
        | {
            head: _entry([found[method, noise, seed] for seed in SEEDS if (method, noise, seed) in found])
            for noise, head in heads.items()
        }
        for method in METHODS
    ]
    note = (
        f"clean test accuracy (%) at the last of {EPOCHS} epochs, all 50,000 images from lossy JPEGs, ResNet-8 of 78 "
        "thousand weights in bfloat16, shifts, flips and rotations, one seed; dead: so many "
        "classes with a recall under 5 %; after CE: two of the epochs with cross-entropy first"
    )
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=[_kept(*key, one) for key, one in found.items()])


def _entry(cells: list[dict[str, Any]]) -> str:
    """Accuracy in percent, and how many classes are dead; empty where nothing was run."""
    if not cells:
        return ""
    accuracy = sum(100 * one["accuracy"] for one in cells) / len(cells)
    dead = max(len(one["dead_classes"]) for one in cells)
    return f"{accuracy:.2f}" + (f", {dead} dead" if dead else "")


def _kept(method: str, noise: str, seed: int, cell: dict[str, Any]) -> dict[str, Any]:
    names = ("accuracy", "recall", "dead_classes", "wrong_labels", "found", "seconds", "seconds_before_training")
    return {"method": method, "noise": noise, "seed": seed} | {name: cell[name] for name in names}


if __name__ == "__main__":
    main()
