"""How long do PnP's forward and backward pass take, beside the published algorithm and other solvers?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import torch
from diffpnp_pose import epnp, solve_pnp
from geometry import cloud, drone
from measure import interleaved, save
from rivals import OPENCV, PerItem, kornia_dlt, opencv_poses, pytorch3d_epnp
from torch import Tensor

QUESTION = "How long do the forward and backward pass of PnP take? (milliseconds, medians)"
NOTES = """One thread, float64, 0.5 px noise. `fwd`, `bwd`, `fwd+bwd` are `solve_pnp`, whose poses are minima of the
reprojection error; OpenCV's SQPNP and EPNP minimise an algebraic error. `per item` is the published algorithm (OpenCV's
ITERATIVE and six autograd passes per item), `per item faster` its cheaper variant; both are extrapolated from 24 items
for larger batches, where they are marked by the column `per item measured at`."""


def forward_backward(f: Callable[[Tensor], Tensor], x: Tensor, up: Tensor) -> Callable[[], Any]:
    """A task that solves and differentiates."""
    x = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(f(x), x, up)


def case(geometry: str, n: int, batch: int) -> dict[str, Any]:
    """One row: all solvers on one batch."""
    x, z, K, _, _ = drone("Tello", batch, 0.5, 0) if geometry == "Tello" else cloud(n, batch, 0.5, 0)
    leaf = x.clone().requires_grad_()
    pose = solve_pnp(leaf, z, K).pose
    up = torch.randn_like(pose)
    few = min(batch, 24)
    tasks: dict[str, Callable[[], Any]] = {
        "fwd": lambda: solve_pnp(x, z, K),
        "bwd": lambda: torch.autograd.grad(pose, leaf, up, retain_graph=True),
        "fwd+bwd": forward_backward(lambda v: solve_pnp(v, z, K).pose, x, up),
        "EPnP fwd": lambda: epnp(x, z, K),
        **{name: (lambda flag=flag: opencv_poses(flag, x, z, K)) for name, flag in OPENCV.items()},
        "kornia DLT": lambda: kornia_dlt(x, z, K),
    }
    if importlib.util.find_spec("pytorch3d"):
        tasks["pytorch3d EPnP"] = lambda: pytorch3d_epnp(x, z, K)
    row: dict[str, Any] = {"geometry": geometry, "n": n, "B": batch} | interleaved(tasks, 7 if batch >= 1024 else 15)
    slow = {
        name: forward_backward(lambda v, faster=faster: PerItem.apply(v, z, K, faster), x[:few], up[:few])
        for name, faster in (("per item fwd+bwd", False), ("per item faster fwd+bwd", True))
    }
    for name, value in interleaved(slow | {"again": tasks["fwd+bwd"]}, 5).items():
        row[name] = value * batch / few
    row["fwd+bwd beside per item"] = row.pop("again") * few / batch
    row["per item / ours"] = row["per item fwd+bwd"] / row["fwd+bwd beside per item"]
    row["fwd / SQPNP"] = row["fwd"] / row["cv2 SQPNP"]
    row["per item measured at"] = few
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shapes = [("Tello", 9), ("cloud", 9), ("cloud", 20)]
    save("timing", QUESTION, [case(g, n, b) for g, n in shapes for b in (1, 24, 256, 1024)], NOTES)
