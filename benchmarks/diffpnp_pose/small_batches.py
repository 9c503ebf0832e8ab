"""Forward solves in process-CPU time, where a busy machine does not count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import torch
from diffpnp_pose import epnp, solve_pnp

from benchmarks.common import interleaved, save
from benchmarks.diffpnp_pose._geometry import cloud
from benchmarks.diffpnp_pose._rivals import OPENCV, opencv_poses
from benchmarks.memory import peak_mib

QUESTION = "How long do solve_pnp and epnp take beside OpenCV, in process-CPU time? (milliseconds, medians)"
NOTE = """One thread, float64, a cloud of points with 0.5 px of noise, calls in turns. OpenCV's SQPNP, item
by item, minimises an algebraic error and stops there. Memory: what a call adds to the peak of a process of its own,
which has solved a small batch before (MiB)."""
SHAPES = ((9, 1), (9, 24), (9, 256), (9, 1024), (100, 1), (100, 24), (100, 256))


def main() -> None:
    """Time every shape."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [row(n, batch) for n, batch in SHAPES]
    save(__file__, QUESTION, rows, note=NOTE, opencv=cv2.__version__)


def calls(n: int, batch: int) -> dict[str, Callable[[], Any]]:
    """The solvers by name, on one batch."""
    x, z, K, _, _ = cloud(n, batch, 0.5, 0)
    return {
        "solve_pnp": lambda: solve_pnp(x, z, K, backward="none"),
        "epnp": lambda: epnp(x, z, K),
        "cv2 SQPNP": lambda: opencv_poses(OPENCV["cv2 SQPNP"], x, z, K),
    }


def row(n: int, batch: int) -> dict[str, Any]:
    """All solvers on one batch."""
    tasks = calls(n, batch)
    times = interleaved(tasks, 25 if batch < 256 else 9, warmup=3, clock=time.process_time)
    found = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratios = {
        "epnp / solve_pnp": found["epnp"] / found["solve_pnp"],
        "solve_pnp / SQPNP": found["solve_pnp"] / found["cv2 SQPNP"],
    }
    # of small batches it is under the resolution of a page count
    peaks = {f"{name}, MiB": memory(n, batch, name) if batch >= 256 else "" for name in tasks}
    return {"n": n, "B": batch, **found, **ratios, **peaks}


def memory(n: int, batch: int, name: str) -> float:
    """MiB that a call takes."""
    lines = "from benchmarks.diffpnp_pose.small_batches import calls"
    return peak_mib(f"{lines}\nwarm, call = (calls({n}, size)[{name!r}] for size in (4, {batch}))")


if __name__ == "__main__":
    main()
