"""Finding wrong labels, beside cleanlab, from the same out-of-fold probabilities; and training again without them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fdiv_noisy import label_issues
from fdiv_noisy.estimation import select_structure
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from benchmarks.common import save
from benchmarks.fdiv_noisy._problems import Problem, kept, posteriors, problems, slug
from benchmarks.fdiv_noisy.battery import EPOCHS, train

QUESTION = "Which labels are wrong: what `label_issues` finds beside cleanlab, and does training without them help?"
LONG = True
SEED = 0
DRAWN = (
    "uniform .4",
    "uniform .3, overlapping",
    "sparse .7/.2",
    "sparse .7/.2, overlapping",
    "sparse .4/.3, K = 50",
    "cyclic .3",
    "one-way .4",
    "groups of 5, .4",
    "instance-dependent .3",
)
NAMES = (
    *(f"blobs {name}" for name in DRAWN),
    *(f"{data} r0_{i}" for data in ("mnist", "fashion-mnist", "cifar-10") for i in range(1, 7)),
    *(f"cifar-10 {name}" for name in ("worse_label", "random_label1", "aggre_label")),
)
TRAINED = (
    *(f"blobs {name}" for name in ("uniform .4", "sparse .7/.2", "cyclic .3")),
    *("mnist r0_2", "fashion-mnist r0_2", "mnist r0_4", "cifar-10 worse_label"),
)
RIVALS = ("self_confidence", "normalized_margin")


def cleanlab(room: str) -> Any:
    """A module of cleanlab, which the group `bench` of dependencies brings."""
    return importlib.import_module(f"cleanlab.{room}")


def rankings(probs: Tensor, problem: Problem) -> dict[str, np.ndarray[Any, Any]]:
    """How wrong each label looks, (N,) by method, the larger the worse."""
    labels, beliefs = problem.noisy.numpy(), probs.double().numpy()
    beliefs = beliefs / beliefs.sum(1, keepdims=True)
    quality = cleanlab("rank").get_label_quality_scores
    scores = {name: 1 - quality(labels, beliefs, method=name) for name in RIVALS}
    return {"ours": label_issues(probs, problem.noisy).wrong.numpy(), **scores}


def found_sets(probs: Tensor, problem: Problem) -> dict[str, np.ndarray[Any, Any]]:
    """The labels that each library calls wrong, (N,) booleans."""
    beliefs = probs.double().numpy()
    beliefs = beliefs / beliefs.sum(1, keepdims=True)
    theirs = np.asarray(cleanlab("filter").find_label_issues(problem.noisy.numpy(), beliefs))
    return {"ours": label_issues(probs, problem.noisy).suspects().numpy(), "cleanlab": theirs}


def judge(name: str, problem: Problem, probs: Tensor) -> dict[str, Any]:
    """Figures of one problem."""
    wrong = (problem.clean != problem.noisy).numpy()
    number = int(wrong.sum())
    row: dict[str, Any] = {"labels": name, "wrong (%)": round(100 * float(wrong.mean()), 1)}
    row["found"] = select_structure(probs, problem.noisy).structure
    for method, score in rankings(probs, problem).items():
        row[f"{method}: AP"] = round(float(average_precision_score(wrong, score)), 3)
        row[f"{method}: right"] = round(float(wrong[np.argsort(-score, kind="stable")[:number]].mean()), 3)
    for library, mask in found_sets(probs, problem).items():
        hits = (wrong & mask).sum()
        row[f"{library}: P/R of its set"] = f"{hits / max(1, mask.sum()):.2f}/{hits / number:.2f}"
    return row


def again(name: str, problem: Problem, probs: Tensor) -> dict[str, Any]:
    """Clean test accuracy (%) of cross-entropy on the labels as they are, mended, and on those not suspected."""
    found = label_issues(probs, problem.noisy)
    suspects = found.suspects()
    cleaned: dict[str, Callable[[], Problem]] = {
        "ce": lambda: problem,
        "relabel": lambda: replace(problem, noisy=torch.where(suspects, found.suggested, problem.noisy)),
        "drop": lambda: replace(problem, inputs=problem.inputs[~suspects], noisy=problem.noisy[~suspects]),
    }
    epochs = EPOCHS[name.split()[0]]
    return {
        key: round(
            kept(f"{slug(name, SEED)}-{key}", lambda make=make: train(make(), nn.CrossEntropyLoss(), SEED, epochs))[
                "score"
            ],
            1,
        )
        for key, make in cleaned.items()
    }


def marked(row: dict[str, Any]) -> dict[str, Any]:
    """The row with what falls behind cleanlab, or behind training on the labels as they are, in bold."""
    best = max(row[f"{rival}: AP"] for rival in RIVALS)
    shown = dict(row)
    if row["ours: AP"] < best - 0.0005:
        shown["ours: AP"] = f"**{row['ours: AP']}**"
    for key in ("relabel", "drop"):
        if row["ce"] != "" and row[key] < row["ce"] - 0.05:
            shown[key] = f"**{row[key]}**"
    return shown


def main() -> None:
    """Judge every problem and write the table; arguments name the problems to prepare instead."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:] if sys.argv[0].endswith("label_issues.py") else []
    makers, rows = problems(), []
    for name in wanted or [name for name in NAMES if name in makers]:
        problem = makers[name](SEED)
        probs = posteriors(name, problem, SEED)
        row = judge(name, problem, probs)
        row |= again(name, problem, probs) if name in TRAINED else dict.fromkeys(("ce", "relabel", "drop"), "")
        rows.append(row)
        print(row, flush=True)
    if wanted:
        return
    note = (
        "AP: average precision; right: share of wrong labels among as many as are wrong, which is precision and recall "
        "there; ce, relabel, drop: clean test accuracy (%) of cross-entropy on the labels as they are, with suspected "
        "labels replaced by suggestions, and without the suspected samples (one seed)"
    )
    save(__file__, QUESTION, [marked(row) for row in rows], note=note, seed=SEED, cells=rows)


if __name__ == "__main__":
    main()
