"""The forward pass beside other solvers, over batch sizes and numbers of points."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import torch
from diffpnp_pose import epnp, solve_pnp

from benchmarks.common import save
from benchmarks.diffpnp_pose._balanced import milliseconds
from benchmarks.diffpnp_pose._geometry import cloud, drone
from benchmarks.diffpnp_pose._rivals import OPENCV, kornia_dlt, opencv_poses, pytorch3d_epnp

QUESTION = "How long does PnP take beside other solvers? (milliseconds, medians)"
NOTES = (
    "One thread, float64, 0.5 px noise. solve_pnp ends at a minimum of the reprojection error; OpenCV's SQPNP and "
    "EPNP, PyTorch3D's EPnP and kornia's DLT minimise an algebraic error and stop there."
)


def row(geometry: str, n: int, batch: int) -> dict[str, Any]:
    """All solvers on one batch."""
    x, z, K, _, _ = drone("Tello", batch, 0.5, 0) if geometry == "Tello" else cloud(n, batch, 0.5, 0)
    leaf = x.clone().requires_grad_()
    pose = solve_pnp(leaf, z, K).pose
    up = torch.randn_like(pose)
    tasks: dict[str, Callable[[], Any]] = {
        "forward": lambda: solve_pnp(x, z, K),
        "backward": lambda: torch.autograd.grad(pose, leaf, up, retain_graph=True),
        "epnp forward": lambda: epnp(x, z, K),
        **{name: (lambda flag=flag: opencv_poses(flag, x, z, K)) for name, flag in OPENCV.items()},
        "kornia DLT": lambda: kornia_dlt(x, z, K),
    }
    if importlib.util.find_spec("pytorch3d"):
        tasks["pytorch3d EPnP"] = lambda: pytorch3d_epnp(x, z, K)
    found = milliseconds(tasks)
    return {"geometry": geometry, "n": n, "B": batch, **found, "forward / SQPNP": found["forward"] / found["cv2 SQPNP"]}


def main() -> None:
    """Time every shape."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shapes = [("Tello", 9), ("cloud", 9), ("cloud", 20)]
    rows = [row(g, n, b) for g, n in shapes for b in (1, 24, 256, 1024)]
    save(__file__, QUESTION, rows, notes=NOTES, opencv=cv2.__version__)
