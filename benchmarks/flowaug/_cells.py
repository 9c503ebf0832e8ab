"""Training runs as cells of a table: each finished one is a file of weights, so that a stopped table goes on there."""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from flowaug.classifier import AugmentedClassifier
from flowaug.cli.data import Sets, load
from flowaug.cli.models import make_model
from flowaug.cli.recipes import TrainConfig
from flowaug.cli.train import Step, fit_on
from robustvision_core.run.folder import load_checkpoint, load_part, save_checkpoint
from robustvision_core.run.runtime import Runtime

DONE = pathlib.Path("runs/benchmarks/flowaug")


@dataclass(frozen=True)
class Cell:
    """One training: what was asked, the data, the model in evaluation mode, and how it went."""

    config: TrainConfig
    sets: Sets
    model: AugmentedClassifier
    runtime: Runtime
    records: list[dict[str, Any]]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """What the JSON of a table keeps of it."""
        return {"config": asdict(self.config), "seconds": round(self.seconds, 1), "last_epoch": self.records[-1]}


def cells(configs: Sequence[TrainConfig]) -> list[Cell]:
    """The trained cell of every configuration, in order, one after another on one thread."""
    return [cell(config) for config in configs]


def cell(config: TrainConfig) -> Cell:
    """Train once, or read what an earlier run has left."""
    torch.set_num_threads(1)
    key = hashlib.sha256(repr(config).encode()).hexdigest()[:16]
    name = f"{config.preset}-{config.augmenter}-{config.seed}-{key}.pt"
    runtime = Runtime.from_env(config.device, config.precision, config.seed)
    sets = load(config)
    step = Step(make_model(config, sets.train), config)
    if not (DONE / name).exists():
        started = time.perf_counter()
        records = fit_on(config, sets, runtime, None, step)
        seconds = time.perf_counter() - started
        save_checkpoint(DONE / name, {"step": step.state_dict(), "records": records, "seconds": seconds})
        print(f"{name}: {seconds:.0f} s", flush=True)
    held = load_checkpoint(DONE / name)
    load_part(step.model, DONE / name, "model")
    model = step.model.to(runtime.device).eval()
    return Cell(config, sets, model, runtime, held["records"], held["seconds"])
