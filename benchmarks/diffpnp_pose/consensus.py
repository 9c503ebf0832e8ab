"""Sample consensus beside PoseLib's, at several shares of outliers."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from typing import Any

import torch
from diffpnp_pose import SampleConsensus, project, rotation_angle, so3_exp, solve_pnp
from torch import Tensor

from benchmarks.common import save
from benchmarks.memory import peak_mib

QUESTION = "How often does sample consensus find the pose among outliers, and how long does it take? (% right, ms)"
NOTE = """Batches of 48 random poses 0.5 to 1.3 m before a camera of LM-O, objects of 20 cm, 1 px of noise, outliers
uniform over a box twice as wide as the object's image, threshold 3 px. Right: under 5 degrees and 5 % of the distance.
`solve_pnp` is one call of the default `SampleConsensus(3.0)`, gradient left out; PoseLib is called item by item with
its defaults but for the threshold. Times: medians of processor time a batch on one thread, in turns in one process.
Memory: what a batch adds to the peak of a process of its own."""
K = torch.tensor([[572.4, 0, 325.3], [0, 573.6, 242.0], [0, 0, 1]], dtype=torch.float64)
BATCH = 48
REPEATS = 5


def scene(n: int, outliers: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image points, object points, rotations and translations."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    z = 0.2 * (uniform(BATCH, n, 3) - 0.5)
    axis = torch.nn.functional.normalize(normal(BATCH, 3), dim=-1)
    R = so3_exp(axis * torch.pi * uniform(BATCH, 1))
    depth = 0.5 + 0.8 * uniform(BATCH, 1)
    t = torch.cat([(uniform(BATCH, 2) - 0.5) * 0.4 * depth, depth], 1)
    x = project(z, R, t, K)
    centre, half = x.mean(1, keepdim=True), (x.amax(1, keepdim=True) - x.amin(1, keepdim=True))
    wrong = centre + half * (2 * uniform(BATCH, n, 2) - 1)
    x = x + normal(BATCH, n, 2)
    return torch.where((torch.arange(n) < round(outliers * n))[:, None], wrong, x), z, R, t


def poselib(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Its poses, item by item."""
    library: Any = importlib.import_module("poselib")
    camera = {"model": "PINHOLE", "width": 640, "height": 480, "params": [572.4, 573.6, 325.3, 242.0]}
    poses = []
    for points, object_points in zip(x.numpy(), z.numpy(), strict=True):
        pose, _ = library.estimate_absolute_pose(points, object_points, camera, {"max_reproj_error": 3.0}, {})
        poses.append(torch.from_numpy(pose.Rt.copy()))
    both = torch.stack(poses)
    return both[:, :, :3], both[:, :, 3]


def ours(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The poses of `solve_pnp`."""
    result = solve_pnp(x, z, K, robust=SampleConsensus(3.0), backward="none")
    return result.R, result.t


def right(found: tuple[Tensor, Tensor], R: Tensor, t: Tensor) -> float:
    """Percentage of poses under 5 degrees and 5 %."""
    angle = torch.rad2deg(rotation_angle(found[0] @ R.mT))
    return 100 * float(((angle < 5) & ((found[1] - t).norm(dim=-1) < 0.05 * t.norm(dim=-1))).double().mean())


def memory(name: str, n: int, outliers: float) -> float:
    """MiB that a batch takes; a small one has been solved before."""
    lines = "import torch\nfrom benchmarks.diffpnp_pose import consensus as of"
    lines += f"\nx, z, _, _ = of.scene({n}, {outliers}, torch.Generator().manual_seed({n}))"
    return peak_mib(f"{lines}\nwarm, call = (lambda: of.{name}(x[:4], z[:4])), (lambda: of.{name}(x, z))")


def main() -> None:
    """Measure every cell."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for n in (9, 50, 200):
        for outliers in (0.1, 0.3, 0.45, 0.6):
            generator = torch.Generator().manual_seed(n)
            found: dict[str, list[float]] = {"ours": [], "poselib": []}
            times: dict[str, list[float]] = {"ours": [], "poselib": []}
            for _ in range(REPEATS):
                x, z, R, t = scene(n, outliers, generator)
                for name, solve in (("ours", ours), ("poselib", poselib)):
                    started = time.process_time()
                    pose = solve(x, z)
                    times[name].append(1e3 * (time.process_time() - started))
                    found[name].append(right(pose, R, t))
            row: dict[str, Any] = {"n": n, "outliers": outliers}
            for name in found:
                row |= {f"{name}, right": statistics.mean(found[name]), f"{name}, ms": statistics.median(times[name])}
            row |= {f"{name}, MiB": memory(name, n, outliers) for name in found}
            rows.append(row | {"ours / poselib, time": row["ours, ms"] / row["poselib, ms"]})
            sys.stdout.write(f"{rows[-1]}\n")
    save(__file__, QUESTION, rows, note=NOTE)


if __name__ == "__main__":
    main()
