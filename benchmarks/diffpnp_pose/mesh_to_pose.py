"""From a mesh to a pose network: trained on drawn crops alone, tested on real photos."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import make_network, predict
from diffpnp_pose.cli.prediction.about import describe_run
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.cli.scoring import score
from diffpnp_pose.cli.train import Step, fit_on
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import Run
from robustvision_core.run.runtime import Runtime

from benchmarks.common import save
from benchmarks.diffpnp_pose._meshes import drawn_from

QUESTION = "How well does a network trained on crops drawn from a mesh find the object in real photos, and which loss?"
LONG = True
NOTE = """Object 5 of LM-O (the watering can), all 199 photos of it, none of them trained on or selected with: the epoch
is chosen on drawn crops, and how crops are drawn was settled with photos of object 8. Crops of 128x128 about the
annotated box; ADD10 is the percentage of poses within a tenth of the diameter, Proj5 within five pixels of the photo.
Minutes are CPU time of one core, without that of drawing the crops if they were drawn before, as here. Without rows of
lh, lm and lp the training was stopped before them: run it again, and it goes on."""
DONE = pathlib.Path("runs/benchmarks/diffpnp_pose/mesh_to_pose")
OBJECT = 5
THEN = 5  # epochs with each loss after those of the preset on heat-maps
SHOWN = ("ADD10", "ADD5", "Proj5", "Proj2", "ACC5", "NPE", "AD")


def configuration(seed: int = 0) -> TrainConfig:
    """What all cells have in common."""
    return drawn_from(OBJECT, DONE, seed=seed)


def train_cell(config: TrainConfig, folder: pathlib.Path, before: float) -> float:
    """Train, recording the scores on the real photos after every epoch; minutes so far."""
    started, paused = time.process_time(), 0.0
    with Runtime.session("cpu", "fp32", config.seed) as runtime:
        training, held = load(config, "train"), load(config, "val")
        run = Run(folder, config, resume=(folder / "config.json").exists())
        run.about = describe_run(config, training)
        step = Step(make_network(config, training), config)
        clocked = time.process_time()
        test = load(config, "test")
        paused += time.process_time() - clocked
        clock = folder / "clock.json"
        base = json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else before

        def minutes_now() -> float:
            return base + (time.process_time() - started - paused) / 60

        def watch() -> dict[str, float]:
            nonlocal paused
            minutes, clocked = minutes_now(), time.process_time()
            values = score(test, predict(step.network, test, runtime, config.pose.solver))
            paused += time.process_time() - clocked
            return {"minutes": minutes} | {f"real_{name}": values[name] for name in SHOWN}

        try:
            records = fit_on(config, training, held, runtime, run, step, watch)
        finally:
            write_json(clock, minutes_now())
            run.close()
    print(folder.name, {name: round(value, 3) for name, value in records[-1].items()}, flush=True)
    return records[-1]["minutes"]


def cells(seed: int = 0) -> None:
    """Train each cell: heat-maps first, and from there each loss."""
    torch.set_num_threads(1)
    config = configuration(seed)
    first = config.with_pose(epochs=0, loss="lh")
    folder = DONE / f"first-{seed}"
    before = train_cell(first, folder, 0.0)
    for loss in ("lh", "lm", "lp"):
        then = replace(config, epochs=0, init=str(folder / "checkpoint.pt")).with_pose(epochs=THEN, loss=loss)
        train_cell(then, DONE / f"{loss}-{seed}", before)


def records_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    """What a run logged."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(seed: int = 0) -> None:
    """Write what has been run: the selected epoch of each loss, and the curve over training time."""
    rows = []
    for loss in ("lh", "lm", "lp"):
        if found := records_of(DONE / f"{loss}-{seed}"):
            best = min(found, key=lambda record: record["val_npe"])
            rows.append({"loss": loss, **_row(best)})
    rows += [{"loss": "heat-maps first", **_row(record)} for record in records_of(DONE / f"first-{seed}")]
    save(__file__, QUESTION, rows, note=NOTE)


def _row(record: dict[str, Any]) -> dict[str, float]:
    values = {name: record[f"real_{name}"] for name in SHOWN}
    return {"epoch": record["epoch"], "minutes": record["minutes"], "drawn, NPE": record["val_npe"], **values}


def main() -> None:
    """Train and write the table."""
    cells()
    table()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table() if sys.argv[1:] == ["table"] else main()
