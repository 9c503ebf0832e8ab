"""How well points agree with poses."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpnp_pose.pnp.linearise import Problem, camera_points

_AT_ONCE = 1 << 16  # residuals computed at once


def residual2(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """Squared residuals `(B, n)`, infinite for points that are absent or behind the camera."""
    _, inverse, u, _ = camera_points(problem, R, t)
    square = (u - problem.x).square().sum(1)
    return torch.where((problem.c > 0) & (inverse[:, 0] > 0), square, torch.inf).nan_to_num(nan=torch.inf)


def scores(problem: Problem, threshold: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """MSAC scores `(B, H)` of poses `(B, H, 3, 3)`, `(B, H, 3)`: squared residuals, each at most the threshold's."""
    n = problem.x.shape[-1]
    items = max(1, min(R.shape[0], _AT_ONCE // (4 * n)))
    poses = max(1, _AT_ONCE // (items * n))
    rows = []
    for start in range(0, max(R.shape[0], 1), items):
        part = slice(start, start + items)
        piece = Problem(problem.x[part], problem.z[part], problem.affine[part], problem.c[part])
        limit = threshold[part] ** 2
        pairs = zip(R[part].split(poses, 1), t[part].split(poses, 1), strict=True)
        rows.append(torch.cat([_truncated(piece, limit, *pose) for pose in pairs], 1))
    return torch.cat(rows)


def _truncated(problem: Problem, limit: Tensor, R: Tensor, t: Tensor) -> Tensor:
    batch, poses = R.shape[:2]
    # the camera's matrix goes into the poses, so that points are mapped once
    camera = torch.nn.functional.pad(problem.affine, (0, 1, 0, 1))
    camera[:, 2, 2] = 1.0
    A = torch.matmul(camera[:, None], torch.cat([R, t[..., None]], 3))
    p = torch.baddbmm(A[..., 3].reshape(batch, -1, 1), A[..., :3].reshape(batch, -1, 3), problem.z)
    u, v, depth = p.view(batch, poses, 3, -1).unbind(2)
    inverse = depth.reciprocal()
    u, v = (u * inverse).sub_(problem.x[:, :1]), (v * inverse).sub_(problem.x[:, 1:])
    square = u.mul_(u).add_(v.mul_(v))
    square = torch.where(depth > 0, square, torch.inf).minimum(limit[:, None])
    present = (problem.c > 0).to(square)
    score = torch.bmm(square, present[:, :, None]).squeeze(-1)
    return torch.where(score.isfinite(), score, torch.inf)
