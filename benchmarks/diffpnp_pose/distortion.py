"""Lens distortion beside OpenCV: how far the two differ, and how long they take."""

from __future__ import annotations

import statistics
import time
from typing import Any

import cv2
import numpy as np
import torch
from diffpnp_pose import Distortion, project, so3_exp, undistort_points
from torch import Tensor

from benchmarks.common import interleaved, save

QUESTION = "Do lenses bend points as OpenCV's do, there and back, and how long does a batch take?"
NOTE = """256 poses of 12 points before a camera of 640x480 pixels, float64, one thread; there: largest difference of
projected pixels; back: largest difference from the undistorted pixel, ours in closed loop and OpenCV's with 500 steps
and an accuracy of 1e-14. Times: medians of processor time a batch, in turns; OpenCV is called item by item."""
K = torch.tensor([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]], dtype=torch.float64)
LENS = [-0.28, 0.09, 1e-3, -8e-4, -0.01, 0.02, 0.01, -3e-3, 1e-3, -5e-4, 8e-4, 2e-4, 0.01, -0.02]
LENSES = {f"opencv, {count} coefficients": LENS[:count] for count in (5, 8, 12, 14)} | {
    "fisheye": [0.05, -0.01, 3e-3, -5e-4]
}
CRITERIA: Any = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)


def opencv(lens: Distortion, z: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """OpenCV's pixels (B, n, 2) of points z at rotation vectors and translations (B, 3)."""
    function: Any = cv2.fisheye.projectPoints if lens.model == "fisheye" else cv2.projectPoints
    points, k = z.numpy()[:, None], lens.coefficients.numpy()
    seen = [function(points, a, b, K.numpy(), k)[0] for a, b in zip(w.numpy(), t.numpy(), strict=True)]
    return torch.from_numpy(np.stack(seen)).reshape(len(w), -1, 2)


def opencv_back(lens: Distortion, x: Tensor) -> Tensor:
    """OpenCV's undistorted pixels of x (B, n, 2)."""
    function: Any = cv2.fisheye.undistortPoints if lens.model == "fisheye" else cv2.undistortPoints
    k, camera = lens.coefficients.numpy(), K.numpy()
    found = [function(item.numpy()[:, None], camera, k, P=camera, criteria=CRITERIA) for item in x]
    return torch.from_numpy(np.stack(found)).reshape(x.shape)


def row(name: str) -> dict[str, Any]:
    """Differences and times of one lens."""
    lens = Distortion(torch.tensor(LENSES[name], dtype=torch.float64), "fisheye" if name == "fisheye" else "opencv")
    draw = torch.Generator().manual_seed(0)
    z = torch.rand(12, 3, generator=draw, dtype=torch.float64) - 0.5
    w = torch.randn(256, 3, generator=draw, dtype=torch.float64)
    t = torch.rand(256, 3, generator=draw, dtype=torch.float64) * 0.4 + torch.tensor([-0.2, -0.2, 3.0])
    R = so3_exp(w)
    seen, ideal = project(z, R, t, K, lens), project(z, R, t, K)
    tasks = {
        "project": lambda: project(z, R, t, K, lens),
        "OpenCV, project": lambda: opencv(lens, z, w, t),
        "undistort": lambda: undistort_points(seen, K, lens),
        "OpenCV, undistort": lambda: opencv_back(lens, seen),
    }
    times = interleaved(tasks, 15, warmup=2, clock=time.process_time)
    return {
        "lens": name,
        "there (px)": float((seen - opencv(lens, z, w, t)).abs().max()),
        "back (px)": float((undistort_points(seen, K, lens) - ideal).abs().max()),
        "OpenCV, back (px)": float((opencv_back(lens, seen) - ideal).abs().max()),
    } | {f"{task} (ms)": 1e3 * statistics.median(seconds) for task, seconds in times.items()}


def main() -> None:
    """Measure every lens and write the table."""
    torch.set_num_threads(1)
    save(__file__, QUESTION, [row(name) for name in LENSES], note=NOTE, opencv=cv2.__version__)


if __name__ == "__main__":
    main()
