"""The ways from keypoints to a pose that training can take, by name."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffpnp_pose.cli.recipes import Solver
from diffpnp_pose.pnp import solve_pnp
from diffpnp_pose.pnp.epnp_backends import epnp


class Poses(NamedTuple):
    """Solved poses.

    Attributes:
        R: (B, 3, 3) rotations, object to camera; differentiable.
        t: (B, 3) translations, metres; differentiable.
        valid: (B,) bool; where it is False the gradient is zero.
    """

    R: Tensor
    t: Tensor
    valid: Tensor


def find_poses(solver: Solver, points_2d: Tensor, points_3d: Tensor, K: Tensor) -> Poses:
    """Poses of image points.

    Args:
        solver: `exact`, `bpnp`, `bpnp-fast` or `epnp`; the first three agree in value and differ in gradient.
        points_2d: (B, P, 2) pixels.
        points_3d: (B, P, 3) metres.
        K: (B, 3, 3) intrinsics, pixels.

    Returns:
        The poses.
    """
    if solver == "epnp":
        found = epnp(points_2d, points_3d, K)
        return Poses(found.R, found.t, found.valid)
    result = solve_pnp(
        points_2d,
        points_3d,
        K,
        backward="gauss_newton" if solver == "bpnp-fast" else "exact",
        constraint="reprojection" if solver == "exact" else "bpnp",
    )
    return Poses(result.R, result.t, result.valid)
