"""How accurate are the poses, and how often do they fail, on the geometry of UAVA?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffpnp_pose import Huber, SampleConsensus, angular_distance, epnp, so3_log, solve_pnp, translation_error
from torch import Tensor

from benchmarks.common import save
from benchmarks.diffpnp_pose._geometry import drone
from benchmarks.diffpnp_pose._rivals import OPENCV, kornia_dlt, opencv, pytorch3d_epnp

POSES = 1000
QUESTION = "How accurate are poses on UAVA's geometry, and how many are more than 15 degrees off?"
NOTES = f"""{POSES} poses per row, all keypoints in a 320x240 image, distances 1.2-3 m (M2ED) and 1-2.5 m (Tello).
`median` is the rotation error in degrees, `fail` the percentage above 15 degrees, `NPE` the median translation error
over the distance. `from the truth` starts the same minimisation at the true pose: it is what the noise allows. With
outliers, that many of the nine keypoints are moved by 20 to 60 px."""

Solver = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def ours(x: Tensor, z: Tensor, K: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """`solve_pnp` with options."""
    result = solve_pnp(x, z, K, **options)
    return result.R, result.t


def solvers() -> dict[str, Solver]:
    """Every solver that needs no truth."""
    found: dict[str, Solver] = {
        "solve_pnp": ours,
        "solve_pnp, Huber": partial(ours, robust=Huber(2.0)),
        "solve_pnp, consensus": partial(ours, robust=SampleConsensus(4.0)),
        "epnp": lambda x, z, K: epnp(x, z, K)[:2],
        **{name: partial(opencv, name) for name in OPENCV},
        "kornia DLT": kornia_dlt,
    }
    if importlib.util.find_spec("pytorch3d"):
        found["pytorch3d EPnP"] = pytorch3d_epnp
    return found


def rows_of(name: str, noise: float, outliers: int, seed: int) -> list[dict[str, Any]]:
    """One row per solver."""
    x, z, K, R, t = drone(name, POSES, noise, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if outliers:
        direction = torch.randn(POSES, outliers, 2, generator=generator, dtype=torch.float64)
        length = 20 + 40 * torch.rand(POSES, outliers, 1, generator=generator, dtype=torch.float64)
        x[:, 1 : 1 + outliers] += direction / direction.norm(dim=-1, keepdim=True) * length
    truth = torch.cat([so3_log(R), t], -1)
    results = {"from the truth": ours(x, z, K, init=truth)}
    results |= {solver: solve(x, z, K) for solver, solve in solvers().items()}
    rows = []
    for solver, (found_R, found_t) in results.items():
        error = torch.rad2deg(angular_distance(found_R, R)).nan_to_num(nan=180.0)
        npe = translation_error(found_t, t).nan_to_num(nan=torch.inf)
        rows.append(
            {
                "drone": name,
                "noise px": noise,
                "outliers": outliers,
                "solver": solver,
                "median": error.median().item(),
                "fail": 100 * (error > 15).double().mean().item(),
                "NPE": npe.median().item(),
            }
        )
    return rows


def main() -> None:
    """Measure every case."""
    torch.set_num_threads(1)
    cases = [(drone_, noise, 0) for drone_ in ("M2ED", "Tello") for noise in (0.05, 0.5, 2.0)]
    cases += [(drone_, 0.5, count) for drone_ in ("M2ED", "Tello") for count in (1, 2)]
    save(__file__, QUESTION, [row for i, c in enumerate(cases) for row in rows_of(*c, seed=10 * i)], notes=NOTES)
