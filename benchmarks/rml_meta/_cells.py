"""Training runs as cells of a table: each has a folder, so that a stopped table goes on where it was."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import torch
from rml_meta.cli import class_split
from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.grid import run_cell
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.train import make_step
from rml_meta.methods import FewShotMethod
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import load_part
from robustvision_core.run.runtime import Runtime

DONE = pathlib.Path("runs/benchmarks/rml_meta")

Measure = Callable[[TrainConfig, ClassSplit, FewShotMethod, Runtime], dict[str, Any]]


def cell(config: TrainConfig) -> dict[str, Any]:
    """Train once, and test the epoch that validation chose; `cpu_seconds` are those of all calls that it took."""
    torch.set_num_threads(1)
    folder = folder_of(config)
    timed = folder / "seconds.json"
    spent = json.loads(timed.read_text(encoding="utf-8")) if timed.exists() else 0.0
    done = (folder / "summary.json").exists()
    started = time.process_time()
    try:
        result = run_cell(config, folder)
    finally:
        if not done and folder.exists():
            spent += time.process_time() - started
            write_json(timed, spent)
    if not done:
        print(f"{folder.name}: {result['novel']['text']}, {spent:.0f} s", flush=True)
    return result | {"cpu_seconds": spent}


def measured(config: TrainConfig, name: str, measure: Measure) -> dict[str, Any]:
    """What `measure` says of the trained method of a cell; kept under `name` in its folder."""
    path = folder_of(config) / f"{name}.json"
    if not path.exists():
        with Runtime.session(config.device, config.precision, config.seed) as runtime:
            split = class_split.load(config)
            method = make_step(config, split).to(runtime.device).method
            load_part(method, folder_of(config) / "best.pt", "method")
            write_json(path, measure(config, split, method, runtime))
    return json.loads(path.read_text(encoding="utf-8"))


def folder_of(config: TrainConfig) -> pathlib.Path:
    """The folder of a configuration, by its readable parts and a hash of all."""
    plain = config.changed(out="", resume=False, progress=True, device="auto", data_root="")
    key = hashlib.sha256(repr(plain).encode()).hexdigest()[:12]
    return DONE / f"{config.preset}-{config.data}-{config.shots}shot-{config.method}-seed{config.seed}-{key}"
