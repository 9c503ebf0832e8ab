"""The chooser beside the plain losses: 27 drawn problems, and images with published and human noise."""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from fdiv_noisy import FDivergenceLoss, GCELoss, NoiseReport, WarmUp, class_prior, estimate
from fdiv_noisy.auto import answer
from fdiv_noisy.choice.candidates import candidates
from fdiv_noisy.choice.race import Plan, Race, run_race
from fdiv_noisy.choice.verdict import Verdict, decide, is_settled
from torch import Tensor, nn

from benchmarks.common import save
from benchmarks.fdiv_noisy._problems import Problem, kept, make_network, posteriors, problems, slug

QUESTION = "Does `auto_loss` ever cost accuracy beside the best of cross-entropy, GCE and KL, and what does it gain?"
SEEDS = [0, 1]
EPOCHS = {"blobs": 20, "cifar-10": 6, "mnist": 8, "fashion-mnist": 8}
BATCH = 128
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)
PLAIN = ("ce", "gce", "kl")


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """The learning rate of images."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)


def train(problem: Problem, criterion: nn.Module, seed: int, epochs: int) -> dict[str, float]:
    """Clean test accuracy (%) at the end of a training; images with flips and one cycle of the learning rate."""
    torch.manual_seed(seed)
    started = time.process_time()
    pictures, n = problem.inputs.dim() == 4, len(problem.inputs)
    model = make_network(problem)()
    optimizer = (SGD if pictures else ADAM)(model.parameters())
    steps = epochs * -(-n // BATCH)
    cycle = one_cycle(optimizer, steps) if pictures else None
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
        guesses = torch.cat([model(part).argmax(1) for part in problem.test_inputs.split(1000)])
    score = 100 * float((guesses == problem.test_labels).float().mean())
    return {"score": score, "seconds": time.process_time() - started}


def plain_losses(problem: Problem) -> dict[str, Callable[[], nn.Module]]:
    """What needs to know nothing of the noise."""
    prior, n = class_prior(problem.noisy, problem.num_classes), len(problem.inputs)
    kl = functools.partial(FDivergenceLoss, "kl", product="exact", prior=prior)
    return {
        "ce": nn.CrossEntropyLoss,
        "gce": GCELoss,
        "kl": lambda: WarmUp(nn.CrossEntropyLoss(), kl(), 1, samples=n),
    }


def choose(name: str, problem: Problem, seed: int, epochs: int) -> tuple[nn.Module, NoiseReport, Verdict]:
    """What `auto_loss` does, step by step, so that the parts that take long are kept."""
    k, n = problem.num_classes, len(problem.inputs)
    pictures = problem.inputs.dim() == 4
    prior = class_prior(problem.noisy, k)
    probs = posteriors(name, problem, seed)
    report = estimate(problem.inputs, problem.noisy, k, refine=False, probs=probs)
    steps = epochs * -(-n // BATCH)
    plan = Plan(steps, BATCH, SGD, one_cycle) if pictures else Plan(steps, BATCH)
    losses = candidates(report, prior, plan.seen(n))
    network: dict[str, Any] = {"make_model": make_network(problem)} if pictures else {}
    settled = functools.partial(is_settled, report=report)

    def guesses() -> dict[str, Any]:
        race = run_race(problem.inputs, problem.noisy, k, losses, plan=plan, seed=seed, settled=settled, **network)
        return {"labels": race.labels, "guesses": dict(race.guesses)}

    plain = {loss: make for loss, make in losses.items() if loss in PLAIN}
    rest = kept(f"{slug(name, seed)}-race-{digest(report, losses)}", guesses) if len(losses) > len(plain) else None
    race = rest or kept(f"{slug(name, seed)}-race-plain", guesses)
    verdict = decide(Race(race["labels"], race["guesses"]), report)
    criterion, report = answer(report, verdict, prior, plan=plan)
    return criterion, report, verdict


def digest(report: NoiseReport, losses: dict[str, Any]) -> str:
    """A name for the corrected losses of a report."""
    matrix: Tensor = report.matrix()
    return hashlib.sha256(repr((list(losses), matrix.tolist(), report.pairs.tolist())).encode()).hexdigest()[:12]


def run_cell(name: str, make: Callable[[int], Problem], seed: int) -> dict[str, Any]:
    """One problem: each plain loss, and the chosen one; what was computed before is read from its file."""
    epochs = EPOCHS[name.split()[0]]
    problem = make(seed)
    results = {
        loss: kept(f"{slug(name, seed)}-{loss}", lambda make=make_loss: train(problem, make(), seed, epochs))
        for loss, make_loss in plain_losses(problem).items()
    }
    chosen, report, verdict = choose(name, problem, seed, epochs)
    taken = verdict.name
    if taken in ("ce", "kl"):  # the same training, warm-up included
        results["auto"] = results[taken]
    else:
        mark = taken if taken == "gce" else f"{taken}-{digest(report, {})}"
        results["auto"] = kept(f"{slug(name, seed)}-auto-{mark}", lambda: train(problem, chosen, seed, epochs))
    scores = {loss: result["score"] for loss, result in results.items()}
    print(name, seed, report.structure, taken, {loss: round(score, 1) for loss, score in scores.items()}, flush=True)
    return {
        "name": name,
        "seed": seed,
        "wrong": float((problem.clean != problem.noisy).float().mean()),
        "estimated": report.rate,
        "interval": report.interval,
        "structure": report.structure,
        "taken": taken,
        "scores": scores,
        "report": str(report),
        "seconds_of_a_training": results["ce"]["seconds"],
    }


def row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table, means over seeds."""

    def mean(loss: str) -> float:
        return sum(result["scores"][loss] for result in results) / len(results)

    regrets = [regret(result) for result in results]
    line = {"problem": name, "wrong (%)": round(100 * results[0]["wrong"], 1)}
    line["found (%)"] = "/".join(f"{100 * result['estimated']:.1f}" for result in results)
    line["structure"] = "/".join(dict.fromkeys(result["structure"] for result in results))
    line |= {loss: round(mean(loss), 1) for loss in (*PLAIN, "auto")}
    line["taken"] = "/".join(result["taken"] for result in results)
    line["regret"] = "/".join(f"**{r:.1f}**" if r > 2 else f"{r:.1f}" for r in regrets)
    return line


def regret(result: dict[str, Any]) -> float:
    """Points that the chosen loss lies below the best plain one by the test set."""
    return max(result["scores"][loss] for loss in PLAIN) - result["scores"]["auto"]


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """Regret over cells, with gains as they are and as 0."""
    every = [regret(result) for result in results]
    return {
        "mean_regret": sum(every) / len(every),
        "mean_regret_without_gains": sum(max(0.0, r) for r in every) / len(every),
        "worst_regret": max(every),
        "cells": len(every),
    }


def main() -> None:
    """Run every cell that was not run before, and write the table; arguments name the problems to run instead."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:] if sys.argv[0].endswith("battery.py") else []
    results: dict[str, list[dict[str, Any]]] = {}
    for name, make in problems().items():
        if not wanted or name in wanted:
            for seed in SEEDS:
                results.setdefault(name, []).append(run_cell(name, make, seed))
    if not wanted:
        tabulate(results)


def tabulate(results: dict[str, list[dict[str, Any]]]) -> None:
    """Write the table of cells by problem."""
    rows = [row(name, found) for name, found in results.items()]
    note = (
        "clean test accuracy (%), means over two seeds; images are 5,000 of CIFAR-10 at 16x16 for 6 "
        "epochs and 6,000 of the others at 14x14 for 8; regret: best of ce, gce and kl by the test set, less auto"
    )
    cells = [result for found in results.values() for result in found]
    drawn = [cell for cell in cells if cell["name"].startswith("blobs")]
    parts = {"": cells, "drawn_": drawn, "images_": [cell for cell in cells if cell not in drawn]}
    figures = {f"{part}{key}": value for part, some in parts.items() if some for key, value in summary(some).items()}
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, summary=figures, cells=cells)


if __name__ == "__main__":
    main()
