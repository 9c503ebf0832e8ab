"""How far is each gradient from finite differences of an independent solver?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffpnp_pose import project, so3_exp, solve_pnp
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from benchmarks.common import save
from benchmarks.diffpnp_pose._geometry import CAMERA

QUESTION = "How far is each gradient from finite differences of scipy's minimiser? (relative, percent)"
NOTES = """Nine points in a cloud of unit radius at the given distance, 12 problems a row; gradient of a random linear
function of the pose with respect to all image points. `bpnp` is the constraint of the published code. What is left of
`exact` is how far from the minimum scipy stops; see the column with differences of solve_pnp itself."""
KINDS = {
    "exact": {},
    "gauss_newton": {"backward": "gauss_newton"},
    "bpnp": {"constraint": "bpnp"},
    "bpnp faster": {"constraint": "bpnp", "backward": "gauss_newton"},
}


def minimiser(x: np.ndarray, z: np.ndarray, K: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Pose by scipy, from a start."""

    def residual(y: np.ndarray) -> np.ndarray:
        p = (Rotation.from_rotvec(y[:3]).apply(z) + y[3:]) @ K.T
        return (p[:, :2] / p[:, 2:] - x).ravel()

    return least_squares(residual, start, jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15, method="lm").x


def own_differences(x: torch.Tensor, z: torch.Tensor, K: torch.Tensor, up: torch.Tensor, h: float) -> torch.Tensor:
    """Central differences of `solve_pnp`, `(B, 9, 2)`."""
    columns = []
    for step in h * torch.eye(18, dtype=x.dtype).view(18, 9, 2):
        change = solve_pnp(x + step, z, K).pose - solve_pnp(x - step, z, K).pose
        columns.append((change * up).sum(-1) / (2 * h))
    return torch.stack(columns, -1).view_as(x)


def row(distance: float, noise: float, count: int = 12, h: float = 1e-2) -> dict[str, Any]:
    """Median relative errors at one distance and noise."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    z, K = normal(count, 9, 3) / 3**0.5, torch.tensor(CAMERA, dtype=torch.float64)
    R, t = so3_exp(normal(count, 3)), torch.tensor([0.0, 0.0, distance], dtype=torch.float64).expand(count, 3)
    x = project(z, R, t, K) + noise * normal(count, 9, 2)
    up = normal(count, 6)
    x.requires_grad_()
    pose = solve_pnp(x, z, K).pose.detach().numpy()
    expected = torch.zeros_like(x).detach()
    for b in range(count):
        for i in range(18):
            ends = []
            for sign in (1, -1):
                moved = x[b].detach().numpy().copy()
                moved.flat[i] += sign * h
                ends.append(minimiser(moved, z[b].numpy(), K.numpy(), pose[b]))
            expected[b].view(-1)[i] = float((ends[0] - ends[1]) @ up[b].numpy()) / (2 * h)
    result: dict[str, Any] = {"distance": distance, "noise px": noise}
    own = torch.autograd.grad((solve_pnp(x, z, K).pose * up).sum(), x)[0] - own_differences(x.detach(), z, K, up, h)
    result["exact, own differences"] = (
        100 * (own.flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).median().item()
    )
    for name, options in KINDS.items():
        found = torch.autograd.grad((solve_pnp(x, z, K, **options).pose * up).sum(), x)[0]  # pyright: ignore
        error = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        result[name] = 100 * error.median().item()
    return result


def main() -> None:
    """Measure every case."""
    torch.set_num_threads(1)
    save(__file__, QUESTION, [row(d, s) for d in (3.0, 5.0, 20.0) for s in (0.0, 0.5, 2.0, 8.0)], notes=NOTES)
