"""Start poses from the triples of the first four points: of exact points one of them is the pose."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.pnp.linearise import Problem, cost_of
from diffpnp_pose.pnp.starts.algebraic import best_distinct, nearest_rotation
from diffpnp_pose.pnp.starts.orthographic import present_first, rays_of
from diffpnp_pose.pnp.starts.p3p import places_on, three_point_poses

_TRIPLES = (0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3)


def minimal_poses(problem: Problem, count: int = 2) -> tuple[Tensor, Tensor]:
    """The best distinct poses that three of the first four present points have, ranked by reprojection cost.

    Args:
        problem: the problems.
        count: number of poses; where an item has fewer, the best is repeated.

    Returns:
        Rotations `(count, B, 3, 3)` and translations `(count, B, 3)`.
    """
    batch = problem.c.shape[0]
    order = present_first(problem.c)[:, :4]
    picked = order.index_select(1, places_on(order.device, _TRIPLES))[:, None]  # (B, 1, 12)
    x = rays_of(problem).gather(2, picked.expand(-1, 2, -1)).view(batch, 2, 4, 3).permute(1, 3, 2, 0)
    z = problem.z.gather(2, picked.expand(-1, 3, -1)).view(batch, 3, 4, 3).permute(1, 3, 2, 0)
    R, t = three_point_poses(x.reshape(2, 3, -1), z.reshape(3, 3, -1))
    R, t = R.view(3, 3, 16, batch).permute(2, 3, 0, 1), t.view(3, 16, batch).permute(1, 2, 0)
    none = R.isnan().flatten(2).any(-1)
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    R = nearest_rotation(torch.where(none[..., None, None], eye, R))
    t = torch.where(none[..., None], 4 * eye[2], t)
    index = torch.arange(batch, device=R.device).repeat(16)
    cost = cost_of(problem.select(index), R.flatten(0, 1), t.flatten(0, 1)).view(16, batch)
    return best_distinct(R, t, torch.where(none, torch.inf, cost), count)
