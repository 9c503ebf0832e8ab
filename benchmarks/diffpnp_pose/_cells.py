"""Training runs as cells of a table: each is a run folder, so that a stopped table goes on within the epoch."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from typing import Any

import cv2
import torch
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import Predictions, make_network, predict
from diffpnp_pose.cli.recipes import PoseOptions, TrainConfig
from diffpnp_pose.cli.scoring import score
from diffpnp_pose.cli.train import Step, fit_on
from robustvision_core.config import RUN_FIELDS
from robustvision_core.data import PoseSet
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import Run, load_checkpoint, load_part
from robustvision_core.run.runtime import Runtime

from benchmarks.diffpnp_pose._rivals import opencv

DONE = pathlib.Path("runs/benchmarks/diffpnp_pose")

_load = functools.lru_cache(maxsize=8)(load)


def run_cells(configs: Sequence[TrainConfig], workers: int) -> list[dict[str, Any]]:
    """Train every configuration through both phases, in ``workers`` processes of one thread; results in order.

    Configurations with the same first phase, which is one without a pose, share its weights: it is trained once.
    """
    families: dict[TrainConfig, list[TrainConfig]] = {}
    for config in configs:
        families.setdefault(first_phase(config), []).append(config)
    if workers == 1 or torch.cuda.is_available():
        done = [run_family(*family) for family in families.items()]
    else:
        with ProcessPoolExecutor(workers) as pool:
            done = list(pool.map(run_family, families.keys(), families.values()))
    found = {
        config: cell
        for family, cells in zip(families.values(), done, strict=True)
        for config, cell in zip(family, cells, strict=True)
    }
    return [found[config] for config in configs]


def changed(config: TrainConfig, **options: Any) -> TrainConfig:
    """The configuration with other options, those of the second phase (`loss`, `solver`) by their own names."""
    pose = {name: options.pop(name) for name in set(options) & {f.name for f in fields(PoseOptions)} - {"epochs", "lr"}}
    return replace(config, **options).with_pose(**pose)


def run_family(first: TrainConfig, configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """The cells of configurations that share their first phase."""
    run_cell(first)
    weights = str(folder_of(first) / "checkpoint.pt")
    return [run_cell(replace(config, epochs=0, init=weights)) for config in configs]


def first_phase(config: TrainConfig) -> TrainConfig:
    """The configuration's epochs on heat-maps, which all losses and solvers share."""
    return config.with_pose(epochs=0, loss="lh", solver="exact", beta=1e-5)


def folder_of(config: TrainConfig) -> pathlib.Path:
    """The run folder of a configuration; what says where it runs is no part of the name."""
    told = {name: value for name, value in asdict(config).items() if name not in RUN_FIELDS}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    phase = "second" if config.init else "first"
    return DONE / "-".join(
        [config.drone, config.network, phase, config.pose.loss, config.pose.solver, str(config.seed), key]
    )


def run_cell(config: TrainConfig) -> dict[str, Any]:
    """Train, and test the epoch that the validation set chose; the test set chooses nothing."""
    folder = folder_of(config)
    path = folder / "cell.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    started = time.process_time()
    with Runtime.session(config.device, config.precision, config.seed) as runtime:
        training, held, test = (_load(replace(config, seed=0, init=""), split) for split in ("train", "val", "test"))
        run = Run(folder, config, resume=(folder / "config.json").exists())
        step = Step(make_network(config, training), config)
        records = fit_on(config, training, held, runtime, run, step)
        trained = time.process_time()
        load_part(step.network, run.best_path)
        result = {
            "config": asdict(config),
            "epoch": load_checkpoint(run.best_path)["record"]["epoch"],
            "test": test_scores(step.network, test, runtime),
            "records": records,
            "training_cpu_seconds": trained - started,
        }
    write_json(path, result)
    print(f"{folder.name}: {_line(result)}", flush=True)
    return result


def test_scores(network: torch.nn.Module, test: PoseSet, runtime: Runtime) -> dict[str, dict[str, float]]:
    """The metrics on the test set, by the solver that turns the network's keypoints into poses."""
    found = {name: predict(network, test, runtime, name) for name in ("exact", "epnp")}
    points = found["exact"].points.double()
    R, t = (
        value.float() for value in opencv("cv2 ITERATIVE", points, test.keypoints_3d[0].double(), test.K[0].double())
    )
    valid = R.isfinite().all(-1).all(-1) & t.isfinite().all(-1)
    R, t = torch.where(valid[:, None, None], R, torch.eye(3)), torch.where(valid[:, None], t, 0.0)
    found["cv2 ITERATIVE"] = Predictions(found["exact"].points, R, t, valid)
    return {name: score(test, poses) | {"pixels": _pixels(test, poses)} for name, poses in found.items()}


def _pixels(test: PoseSet, found: Predictions) -> float:
    """Mean distance of the found keypoints from the true ones."""
    return float((found.points - test.keypoints_2d).norm(dim=-1).mean())


def _line(result: dict[str, Any]) -> str:
    test = result["test"]["exact"]
    shown = ", ".join(f"{name} {test[name]:.3f}" for name in ("NPE", "AD", "ACC5", "ADD5", "Proj2", "pixels"))
    return f"epoch {result['epoch']}, {shown}, {result['training_cpu_seconds']:.0f} s"
