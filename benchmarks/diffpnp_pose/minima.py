"""How often the minimum found is not the least one known."""

from __future__ import annotations

from typing import Any

import cv2
import torch
from diffpnp_pose import PnPResult, project, so3_exp, so3_log, solve_pnp
from torch import Tensor

from benchmarks.common import save
from benchmarks.diffpnp_pose._geometry import CAMERA
from benchmarks.diffpnp_pose._rivals import OPENCV, opencv_poses

POSES = 1000
RANDOM_STARTS = 20
QUESTION = "How often does the search end in a minimum that is not the least one known? (percent of items)"
NOTES = f"""{POSES} random clouds of unit deviation in a row, 3 to 8 units away, 0.5 px noise. The least minimum known
is the best of all columns, of the minimum next to the truth, and of {RANDOM_STARTS} random starts. An item counts if
its cost is more than 1e-6 above. `the truth's own` is the minimum next to the true pose: where it is not the least,
noise has moved the best pose elsewhere."""


def problems(n: int, flat: bool, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image points `(B, n, 2)`, object points `(B, n, 3)`, K, and true poses `(B, 6)`; all points before the camera."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2 * POSES, n, 3, generator=generator, dtype=torch.float64)
    if flat:
        z[..., 2] = 0
    w = torch.randn(2 * POSES, 3, generator=generator, dtype=torch.float64)
    t = torch.rand(2 * POSES, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 2.0, 5.0])
    t = t + torch.tensor([-1.0, -1.0, 3.0])
    K = torch.tensor(CAMERA, dtype=torch.float64)
    R = so3_exp(w)
    front = ((z @ R.mT + t[:, None])[..., 2] > 0.2).all(-1).nonzero()[:POSES, 0]
    x = project(z, R, t, K)
    x = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x[front], z[front], K, torch.cat([so3_log(R), t], -1)[front]


def cost_of(found: PnPResult) -> Tensor:
    """Costs `(B,)`, infinite where no pose was found."""
    return torch.where(found.valid, found.cost, torch.inf)


def random_starts(x: Tensor, z: Tensor, K: Tensor, seed: int) -> Tensor:
    """The least cost `(B,)` from random rotations, five units before the camera."""
    generator = torch.Generator().manual_seed(seed)
    best = torch.full((len(x),), torch.inf, dtype=x.dtype)
    for _ in range(RANDOM_STARTS):
        start = torch.randn(len(x), 6, generator=generator, dtype=x.dtype) * torch.tensor([2.0, 2, 2, 0, 0, 0])
        best = torch.minimum(best, cost_of(solve_pnp(x, z, K, init=start + torch.tensor([0.0, 0, 0, 0, 0, 5]))))
    return best


def row(n: int, flat: bool, seed: int) -> dict[str, Any]:
    """Percentages of one kind of problem."""
    x, z, K, truth = problems(n, flat, seed)
    costs = {name: cost_of(solve_pnp(x, z, K, init=name)) for name in ("auto", "weak_perspective", "sqpnp", "epnp")}
    flag = OPENCV["cv2 SQPNP"]
    start = torch.cat([torch.from_numpy(opencv_poses(flag, x[b : b + 1], z[b], K)) for b in range(len(x))])
    costs["cv2 SQPNP, refined"] = cost_of(solve_pnp(x, z, K, init=start))
    near = cost_of(solve_pnp(x, z, K, init=truth))
    least = torch.stack([*costs.values(), near, random_starts(x, z, K, seed)]).amin(0)

    def above(cost: Tensor) -> float:
        return 100 * (cost > least * (1 + 1e-6) + 1e-12).double().mean().item()

    shares = {name: above(cost) for name, cost in costs.items()}
    return {"points": n, "in a plane": flat, **shares, "the truth's own": above(near)}


def main() -> None:
    """Measure every case."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cases = [(4, True), (5, True), (9, True), (4, False), (5, False), (6, False), (9, False)]
    save(__file__, QUESTION, [row(n, flat, seed) for seed, (n, flat) in enumerate(cases)], notes=NOTES)
