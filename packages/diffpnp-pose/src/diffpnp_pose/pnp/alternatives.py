"""The second minimum of every item, for flat objects and few points, where it may fit as well as the first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.geometry.quaternions import rotation_angle
from diffpnp_pose.pnp.candidates import all_starts, minimise
from diffpnp_pose.pnp.linearise import Problem, cost_of
from diffpnp_pose.pnp.starts.orthographic import shape_of

_APART = 1e-3  # radians, or object radii, between two minima that are not one
_ROUNDING = 1e-24  # cost of exact points, in squared focal lengths


@dataclass(frozen=True)
class Minimum:
    """The best other minimum of normalised problems.

    Attributes:
        R: rotations, `(B, 3, 3)`.
        t: translations, `(B, 3)`.
        cost: costs, `(B,)`; infinite where no other minimum was found.
        ratio: cost of the first minimum over that of this one, `(B,)`; 0 where there is none.
    """

    R: Tensor
    t: Tensor
    cost: Tensor
    ratio: Tensor


@torch.no_grad()
def other_minimum(problem: Problem, R: Tensor, t: Tensor) -> Minimum:
    """The best minimum, reached from any of the starts, that is not the pose `(R, t)`.

    Args:
        problem: the normalised problems.
        R: rotations, `(B, 3, 3)`.
        t: translations, `(B, 3)`.

    Returns:
        The other minima.
    """
    starts = all_starts(problem, shape_of(problem.z, problem.c))
    s, batch = len(starts), R.shape[0]
    rows = torch.arange(batch, device=R.device)
    found = minimise(problem.select(rows.repeat(s)), *(torch.cat(part) for part in zip(*starts, strict=True)))
    angle = rotation_angle(found.R.view(s, batch, 3, 3) @ R.mT)
    apart = (angle > _APART) | ((found.t.view(s, batch, 3) - t).abs().amax(-1) > _APART * (1 + t.norm(dim=-1)))
    real = (found.converged & found.cost.isfinite()).view(s, batch) & apart
    cost = torch.where(real, found.cost.view(s, batch), torch.inf)
    best = cost.argmin(0)
    index, cost = best * batch + rows, cost.gather(0, best[None])[0]
    first = cost_of(problem, R, t)
    return Minimum(found.R[index], found.t[index], cost, (first + _ROUNDING) / (cost + _ROUNDING))
