"""Training runs as cells of a table: each finished cell is a file, so that a stopped table goes on where it was."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from fdiv_noisy.cli import criteria
from fdiv_noisy.cli.classifier import confusion_on_test, make_classifier, summarise
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.cli.train import Step, fit_on
from robustvision_core.run.files import write_json
from robustvision_core.run.runtime import Runtime

DONE = pathlib.Path("runs/benchmarks/fdiv_noisy")


def run_cells(configs: Sequence[TrainConfig], workers: int = 2) -> list[dict[str, Any]]:
    """The result of every configuration, in order; ``workers`` processes of one thread each."""
    if torch.cuda.is_available():
        return [run_cell(config) for config in configs]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(run_cell, configs))


def run_cell(config: TrainConfig) -> dict[str, Any]:
    """Train once and test the last epoch on clean labels; nothing is selected by test accuracy."""
    key = hashlib.sha256(repr(config).encode()).hexdigest()[:16]
    path = (
        DONE
        / f"{config.data}-{config.noise.replace(':', '_').replace('/', '_')}-{config.loss}-{config.seed}-{key}.json"
    )
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    started = time.perf_counter()
    with Runtime.session(config.device, config.precision, config.seed) as runtime:
        noisy = load(config)
        criterion, report = criteria.build(config, noisy, runtime)
        prepared = time.perf_counter() - started
        classifier = make_classifier(config, noisy.train)
        step = Step(classifier.network, criterion)
        records = fit_on(config, noisy, runtime, None, step, classifier)
        summary = summarise(confusion_on_test(config, classifier, noisy, runtime), noisy.test.classes)
    result = {
        "config": asdict(config),
        "wrong_labels": noisy.wrong_labels,
        **summary,
        "found": str(report) if report is not None else None,
        "structure": report.structure if report is not None else None,
        "loss_curve": [record["loss"] for record in records],
        "seconds": time.perf_counter() - started,
        "seconds_before_training": prepared,
    }
    write_json(path, result)
    print(f"{path.stem}: {100 * result['accuracy']:.2f} % in {result['seconds']:.0f} s", flush=True)
    return result
