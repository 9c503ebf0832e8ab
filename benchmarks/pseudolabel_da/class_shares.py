"""Estimated class shares as the selector's prior, where classes are uneven and where they are even."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel_da.cli.recipes import TrainConfig

from benchmarks.common import data_root, save
from benchmarks.pseudolabel_da._cells import after, row, run_cell, slim
from benchmarks.pseudolabel_da.shifts import UNEVEN

QUESTION = "How near does `prior=estimate` come to the true prior, on classes of 10 to 1 and on even ones?"
LONG = True
SEEDS = [2, 3]
AIM = 2.0  # points that the estimate may stay under the true prior
TRUE = [10 ** (-k / 9) for k in range(10)]  # what target_imbalance makes
EVEN = [1.0] * 10
PRIORS = {"even (wrong)": "even", "true": ",".join(f"{share:.4f}" for share in TRUE), "estimate": "estimate"}
# shares of the target's classes, and the priors that are tried there
TARGETS: dict[str, tuple[list[float], TrainConfig, dict[str, str]]] = {
    "10 to 1": (TRUE, UNEVEN, PRIORS),
    "even": (EVEN, UNEVEN.changed(target_imbalance=1.0), {"true": "even", "estimate": "estimate"}),
}


def main() -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    rows, cells = [], []
    for name, (truth, config, priors) in TARGETS.items():
        held = {
            prior: [run_cell(after(config.changed(seed=seed, prior=given))) for seed in SEEDS]
            for prior, given in priors.items()
        }
        for prior, found in held.items():
            rows.append({"target classes": name} | row(prior, found) | compared(found, held["true"], truth))
            cells += [{"target classes": name, "prior": prior} | kept for kept in slim(found)]
    note = (
        "MNIST to MNIST-M, no digit in both, 6,000 source and 3,000 target images, 10 epochs with period 2; "
        "accuracy (%) at the last epoch on 10,000 target images of even classes, mean and standard deviation over "
        "seeds; off: half of the sum of absolute differences between estimated and true shares, first and last period"
    )
    save(__file__, QUESTION, rows, note=note, aim=AIM, seeds=SEEDS, cells=cells)


def compared(
    found: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]], truth: Sequence[float]
) -> dict[str, Any]:
    """Points that the runs stay under those with the true prior, and how far the estimated shares are off."""
    under = [100 * (accuracy(b) - accuracy(f)) for b, f in zip(best, found, strict=True)]
    off = [[distance(cell["periods"][place]["class_shares"], truth) for cell in found] for place in (0, -1)]
    return {
        "points under the true prior": statistics.mean(under),
        "off at first": statistics.mean(off[0]),
        "off at last": statistics.mean(off[1]),
    }


def accuracy(cell: Mapping[str, Any]) -> float:
    """On the target's test images."""
    return cell["final"]["target"]["accuracy"]


def distance(shares: Sequence[float], truth: Sequence[float]) -> float:
    """Total variation of shares that add up to 1 and of others that need not."""
    return sum(abs(a - b / sum(truth)) for a, b in zip(shares, truth, strict=True)) / 2


if __name__ == "__main__":
    main()
