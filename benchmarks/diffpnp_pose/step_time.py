"""Tables 1 and 7 of the paper: what a pose in the loss adds to a training step, and which part of it takes the time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import cv2
import torch
from diffpnp_pose import so3_exp
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import Poses, find_poses, heatmaps_of, keypoints_of, make_network
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.cli.train import Step, make_batches
from robustvision_core.data import PoseBatch
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from benchmarks.common import save
from benchmarks.diffpnp_pose._cells import changed
from benchmarks.diffpnp_pose._rivals import PerItem, opencv

QUESTION = "How long does a training step of 24 images take, by loss, solver and network? (milliseconds, medians)"
NOTES = """One thread, rendered drones at 128x96, networks of the `quick` preset. Every solver gets image points 0.5 px
from the true ones, as a trained network gives them. `published` is the layer of Chen et al. (2020) rewritten: OpenCV's
consensus and ITERATIVE in a loop over the items, six scalar backward passes per item. `test` is one image through
network and solver, without gradients."""
REPEATS = 7
BASE = replace(TrainConfig.PRESETS["quick"], train_size=24, batch_size=24, epochs=0, device="cpu", progress=False)
METHODS: dict[str, dict[str, Any]] = {
    "HRNet, l_h": {"loss": "lh"},
    "l_m, exact": {"loss": "lm", "solver": "exact"},
    "l_p, exact": {"loss": "lp", "solver": "exact"},
    "l_p, bpnp": {"loss": "lp", "solver": "bpnp"},
    "l_p, bpnp-fast": {"loss": "lp", "solver": "bpnp-fast"},
    "l_m, epnp": {"loss": "lm", "solver": "epnp"},
    "l_p, published": {"loss": "lp", "solver": "bpnp"},
    "l_p, published faster": {"loss": "lp", "solver": "bpnp-fast"},
    "Hourglass, l_h": {"loss": "lh", "network": "hourglass"},
    "HigherHRNet, l_h": {"loss": "lh", "network": "higher_hrnet"},
}


def published(solver: str, points: Tensor, z: Tensor, K: Tensor) -> Poses:
    """`find_poses` through the per-item layer, or OpenCV alone where no gradient is wanted."""
    x, z, K = points.double(), z[0].double(), K[0].double()
    if not points.requires_grad:
        R, t = opencv("cv2 ITERATIVE", x, z, K)
    else:
        pose: Tensor = PerItem.apply(x, z, K, solver == "bpnp-fast", False)  # pyright: ignore[reportAssignmentType]
        R, t = so3_exp(pose[:, :3]), pose[:, 3:]
    return Poses(R.to(points.dtype), t.to(points.dtype), t.isfinite().all(-1))


class Task:
    """A step of one method on one batch, and its phases' times in seconds."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        config = changed(BASE, **METHODS[name])
        training = load(config, "train")
        self.runtime = runtime
        self.batch: PoseBatch = next(iter(make_batches(config, training, runtime).epoch(0)))
        self.step = Step(make_network(config, training), config)
        self.step.set_epoch(0)
        self.optimizer = torch.optim.Adam(self.step.parameters(), 1e-6)
        self.find: Callable[..., Poses] = published if "published" in name else find_poses
        self.near = self.batch.keypoints_2d + 0.5 * torch.randn_like(self.batch.keypoints_2d)
        self.times: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": [], "test": []}

    def solve(self, solver: Any, points: Tensor, z: Tensor, K: Tensor) -> Poses:
        """Poses from points near the truth, with the gradient going to the network's own."""
        return self.find(solver, self.near[: len(points)] + points - points.detach(), z, K)

    def run(self) -> None:
        """One step, then one image of the test."""
        marks = [time.perf_counter()]
        with mock.patch("diffpnp_pose.cli.train.find_poses", self.solve):
            loss = self.step.train()(self.batch)["loss"]
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        self.optimizer.step()
        marks.append(time.perf_counter())
        with torch.no_grad():
            images = self.batch.images[:1]
            points = keypoints_of(heatmaps_of(self.step.eval().network, images, self.runtime), images)
            self.solve(self.step.config.pose.solver, points, self.batch.keypoints_3d[:1], self.batch.K[:1])
        marks.append(time.perf_counter())
        for name, start, end in zip(self.times, marks, marks[1:], strict=False):
            self.times[name].append(end - start)


def main() -> None:
    """Time all methods in turns."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with Runtime.session("cpu", "fp32", 0) as runtime:
        tasks = {name: Task(name, runtime) for name in METHODS}
        for _ in range(REPEATS + 1):
            for task in tasks.values():
                task.run()
    rows = []
    for name, task in tasks.items():
        found = {phase: 1e3 * statistics.median(times[1:]) for phase, times in task.times.items()}
        step = found["forward"] + found["backward"] + found["optimizer"]
        rows.append({"method": name, **found, "step": step})
    base = rows[0]["step"]
    save(__file__, QUESTION, [row | {"step / l_h": row["step"] / base} for row in rows], notes=NOTES)


if __name__ == "__main__":
    main()
