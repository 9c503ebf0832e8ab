"""When sampling may end, and when agreement is more than chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpnp_pose.pnp.consensus.scoring import residual2
from diffpnp_pose.pnp.linearise import Problem
from diffpnp_pose.pnp.robust import MINIMAL, SampleConsensus

_CHANCE = 0.02  # expected number of chance agreements as good as one that is trusted
_MORE = 1.0  # times the samples that theory asks for without noise


def enough(problem: Problem, agree: Tensor, threshold: Tensor, options: SampleConsensus) -> Tensor:
    """Whether so many points agree that it is hardly chance, `(B,)`.

    Under chance a point falls within the threshold with the probability `p` of that disc in the box around the image
    points, and `k` of `m` do with probability at most `exp(-m KL(k/m || p))`. The number of poses tried times this is
    the expected number of chance agreements.
    """
    present, count = problem.c > 0, agree.sum(-1)
    if options.least_inliers:
        return count >= options.least_inliers
    x = torch.where(present[:, None], problem.x, torch.nan)
    low = x.nan_to_num(nan=torch.inf).amin(-1)
    high = x.nan_to_num(nan=-torch.inf).amax(-1)
    area = (high - low + 2 * threshold).prod(-1)
    p = (math.pi * threshold[:, 0] ** 2 / area).clamp(1e-12, 0.9)
    total = present.sum(-1)
    m = (total - MINIMAL).clamp_min(1).to(p)
    k = ((count - MINIMAL).clamp_min(0) / m).clamp(1e-9, 1 - 1e-9)
    divergence = k * (k / p).log() + (1 - k) * ((1 - k) / (1 - p)).log()
    tried = subsets(total.to(p), MINIMAL).clamp(1, options.hypotheses)
    rare = (k > p) & ((4 * tried).log() - m * divergence < math.log(_CHANCE))
    return rare | (count == total)


def settled(problem: Problem, R: Tensor, t: Tensor, threshold: Tensor, options: SampleConsensus, done: int) -> Tensor:
    """Whether `done` samples hold one without outliers, with the confidence asked for, `(B,)`."""
    agree = (residual2(problem, R, t) <= threshold**2).sum(-1)
    total = (problem.c > 0).sum(-1)
    share = subsets(agree.double(), options.sample) / subsets(total.double(), options.sample).clamp_min(1)
    missing = done / _MORE * torch.log1p(-share.clamp(0, 1 - 1e-12))
    return missing < math.log1p(-options.confidence)


def subsets(count: Tensor, size: int) -> Tensor:
    """Number of subsets of a size."""
    product = torch.ones_like(count)
    for k in range(size):
        product = product * (count - k).clamp_min(0) / (k + 1)
    return product
