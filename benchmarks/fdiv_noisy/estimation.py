"""The noise found from the noisy labels of every published file, beside the truth."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.estimation import anchor_points, confident_joint, cross_fit_probabilities, estimate
from fdiv_noisy.noise import describe
from torch import Tensor

from benchmarks.common import data_root, save

QUESTION = "Is the noise of the published label files found from the noisy labels alone?"
LONG = True
SIZES = [10_000, 60_000]
TRUTH = {"r0_1": "sparse", "r0_2": "sparse"} | dict.fromkeys(("r0_3", "r0_4", "r0_5", "r0_6"), "uniform")


def error(estimated: Tensor, truth: Tensor) -> float:
    """L1 distance of two matrices (K, K) over the norm of the truth."""
    return float((estimated - truth).abs().sum() / truth.abs().sum())


def row(data: str, file: str, size: int) -> dict[str, object]:
    """One file at one size."""
    config = replace(TrainConfig.PRESETS["mnist"], data=data, noise=f"published:{file}", train_size=size)
    noisy = load(config)
    train = noisy.in_memory()
    truth = describe(train.labels, noisy.clean, 10)
    assert truth.transition is not None
    assert truth.pairs is not None
    started = time.perf_counter()
    probs = cross_fit_probabilities(train.images, train.labels, 10)
    report = estimate(train.images, train.labels, 10, probs=probs)
    seconds = time.perf_counter() - started
    expected = {frozenset(pair) for pair in truth.pairs.tolist()} if TRUTH[file] == "sparse" else set()
    t = truth.transition.float()
    return {
        "data": data,
        "labels": file,
        "N": size,
        "wrong": round(float(truth.rate or 0), 3),
        "found": report.structure,
        "right": report.structure == TRUTH[file] and {frozenset(p) for p in report.pairs.tolist()} == expected,
        "error of T": error(report.matrix(), t),
        "confident joint": error(confident_joint(probs, train.labels).transition, t),
        "anchor points": error(anchor_points(probs), t),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Run every file at both sizes and write the table."""
    if data_root() is None:
        return
    torch.set_num_threads(1)
    rows = [row(data, file, size) for size in SIZES for data in ("mnist", "fashion-mnist") for file in TRUTH]
    save(__file__, QUESTION, rows, note="error of T: L1 distance to the true confusion over its norm; rivals beside it")


if __name__ == "__main__":
    main()
