"""Poses of random samples, the same samples for every item and every call."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from diffpnp_pose.devices import kept
from diffpnp_pose.pnp.linearise import Problem
from diffpnp_pose.pnp.robust import MINIMAL, SampleConsensus
from diffpnp_pose.pnp.starts.p3p import three_point_poses


def hypotheses(
    problem: Problem, rays: Tensor, order: Tensor, options: SampleConsensus, numbers: range
) -> tuple[Tensor, Tensor]:
    """Poses of samples: rotations `(B, H, 3, 3)` and translations `(B, H, 3)`, NaN where there is none."""
    batch, size = rays.shape[0], options.sample
    picked = order[:, None].expand(-1, len(numbers), -1).gather(2, _ranks(problem.c, size, numbers))  # (B, S, k)
    flat = picked.view(batch, 1, -1)
    x = rays.gather(2, flat.expand(-1, 2, -1)).view(batch, 2, -1, size)
    z = problem.z.gather(2, flat.expand(-1, 3, -1)).view(batch, 3, -1, size)
    x, z = x.permute(1, 3, 0, 2).flatten(2), z.permute(1, 3, 0, 2).flatten(2)
    R, t = three_point_poses(x[:, :MINIMAL].contiguous(), z[:, :MINIMAL].contiguous())
    R, t = (value.unflatten(-1, (batch, -1)) for value in (R, t))
    R, t = R.permute(3, 4, 2, 0, 1), t.permute(2, 3, 1, 0)  # (B, S, 4, ...)
    if size > MINIMAL:
        x, z = (value.unflatten(-1, (batch, -1)).permute(2, 3, 0, 1)[:, :, None] for value in (x, z))
        p = R @ z[..., MINIMAL:] + t[..., None]
        error = (p[..., :2, :] / p[..., 2:, :] - x[..., MINIMAL:]).square().sum((-2, -1)).nan_to_num(nan=torch.inf)
        best = error.argmin(2, keepdim=True)
        R = R.gather(2, best[..., None, None].expand(-1, -1, -1, 3, 3))
        t = t.gather(2, best[..., None].expand(-1, -1, -1, 3))
    return R.flatten(1, 2), t.flatten(1, 2)


def _ranks(c: Tensor, size: int, numbers: range) -> Tensor:
    """Ranks `(B, S, k)` of distinct present points, drawn alike for every item."""
    drawn = _draws(size, numbers.start, numbers.stop, c.dtype, c.device)
    count = (c > 0).sum(-1)[:, None]
    chosen: list[Tensor] = []
    for k, uniform in enumerate(drawn):
        rank = (uniform * (count - k).clamp_min(1)).long()
        for other in _ascending(chosen):
            rank = rank + (rank >= other)
        chosen.append(rank.clamp_max(c.shape[1] - 1))
    return torch.stack(chosen, -1)


def _ascending(values: list[Tensor]) -> list[Tensor]:
    return list(torch.stack(values).sort(0).values) if len(values) > 1 else values


@kept
def _draws(size: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Fixed random numbers in [0, 1), `(k, S)`, of the samples from `start` to `stop`."""
    rows = [[random.Random(f"{number} {k}").random() for number in range(start, stop)] for k in range(size)]
    return torch.tensor(rows, dtype=dtype).to(device)
