"""Sample consensus over a batch: minimal samples, local optimisation, an adaptive number of samples."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffpnp_pose.devices import kept, readable
from diffpnp_pose.pnp.initial import present_first, rays_of
from diffpnp_pose.pnp.linearise import Problem, camera_points
from diffpnp_pose.pnp.p3p import three_point_poses
from diffpnp_pose.pnp.refine import groups_with, refine
from diffpnp_pose.pnp.robust import MINIMAL, SampleConsensus
from diffpnp_pose.pnp.sqpnp import nearest_rotation

_ROUNDS = (16, 16, 32)  # samples between two looks at whether it is enough; the last size repeats
_AT_ONCE = 1 << 18  # residuals computed at once
_FITS = ((1.5, 3), (1.0, 3))  # local optimisation: threshold relative to the caller's, and steps
_CHANCE = 0.02  # expected number of chance agreements as good as one that is trusted
_MORE = 2.0  # times the samples that theory asks for without noise


@dataclass
class Consensus:
    """The best pose of every item, in the normalised problem, and who agrees with it.

    Attributes:
        R: rotations, `(B, 3, 3)`.
        t: translations, `(B, 3)`.
        score: sum of truncated squared residuals, `(B,)`.
    """

    R: Tensor
    t: Tensor
    score: Tensor

    def better_of(self, other: Consensus) -> Consensus:
        """The one with the lower score, for every item."""
        keep = self.score <= other.score
        return Consensus(
            torch.where(keep[:, None, None], self.R, other.R),
            torch.where(keep[:, None], self.t, other.t),
            torch.where(keep, self.score, other.score),
        )


def find_consensus(problem: Problem, threshold: Tensor, options: SampleConsensus) -> tuple[Consensus, Tensor]:
    """Poses with the most consensus.

    Args:
        problem: the normalised problems, squared residuals.
        threshold: largest residual of an inlier in normalised units, `(B, 1)`.
        options: how to sample.

    Returns:
        The poses, and which points agree with them, `(B, n)`.
    """
    rays, order = rays_of(problem), present_first(problem.c)
    batch = problem.c.shape[0]
    best = _nothing(problem)
    wanted = torch.ones(batch, dtype=torch.bool, device=problem.c.device)
    rows, done = torch.arange(batch, device=problem.c.device), 0
    while done < options.hypotheses and rows.shape[0]:
        size = min(_ROUNDS[min(done // _ROUNDS[0], len(_ROUNDS) - 1)], options.hypotheses - done)
        part = (problem, rays, order, threshold)
        if whole := rows.shape[0] >= batch:
            rows = torch.arange(batch, device=rows.device)  # a small batch may stand in more groups than it has items
        else:
            part = (problem.select(rows), rays[rows], order[rows], threshold[rows])
        found = _fitted(part[0], _best_sample(*part, options, range(done, done + size)), part[3])
        best = _improved(best, rows, wanted, found, whole)
        done += size
        if readable(wanted):
            wanted = wanted & ~_settled(problem, best, threshold, options, done)
            rows = groups_with(wanted) if wanted.any() else rows[:0]
    best = _fitted(problem, best, threshold)
    return best, residual2(problem, best.R, best.t) <= threshold**2


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
    tried = _subsets(total.to(p), MINIMAL).clamp(1, options.hypotheses)
    rare = (k > p) & ((4 * tried).log() - m * divergence < math.log(_CHANCE))
    return rare | (count == total)


def residual2(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """Squared residuals `(B, n)`, infinite for points that are absent or behind the camera."""
    _, inverse, u, _ = camera_points(problem, R, t)
    square = (u - problem.x).square().sum(1)
    return torch.where((problem.c > 0) & (inverse[:, 0] > 0), square, torch.inf).nan_to_num(nan=torch.inf)


def _nothing(problem: Problem) -> Consensus:
    eye = torch.eye(3, dtype=problem.x.dtype, device=problem.x.device)
    batch = problem.c.shape[0]
    score = torch.full_like(problem.c[:, 0], torch.inf)
    return Consensus(eye.expand(batch, 3, 3), 4 * eye[2].expand(batch, 3), score)


def _improved(best: Consensus, rows: Tensor, wanted: Tensor, found: Consensus, whole: bool) -> Consensus:
    """`best` with what was found for the wanted ones of these items, where that is better."""
    if whole:
        found = replace(found, score=torch.where(wanted, found.score, torch.inf))
        return best.better_of(found)
    chosen = wanted[rows] & (found.score < best.score[rows])
    rows = rows[chosen]
    return Consensus(
        best.R.index_copy(0, rows, found.R[chosen]),
        best.t.index_copy(0, rows, found.t[chosen]),
        best.score.index_copy(0, rows, found.score[chosen]),
    )


def _best_sample(
    problem: Problem, rays: Tensor, order: Tensor, threshold: Tensor, options: SampleConsensus, numbers: range
) -> Consensus:
    """The best pose of these samples."""
    R, t = _hypotheses(problem, rays, order, options, numbers)
    score = _scores(problem, threshold, R, t)
    best = score.argmin(1)
    rows = torch.arange(best.shape[0], device=best.device)
    R, score = R[rows, best], score[rows, best]
    none = score.isinf()
    start = _nothing(problem)
    R = torch.where(none[:, None, None], start.R, nearest_rotation(R))
    return Consensus(R, torch.where(none[:, None], start.t, t[rows, best]), score)


def _hypotheses(
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


def _scores(problem: Problem, threshold: Tensor, R: Tensor, t: Tensor) -> Tensor:
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
    p = torch.baddbmm(t.reshape(batch, -1, 1), R.reshape(batch, -1, 3), problem.z).view(batch, poses, 3, -1)
    depth = p[:, :, 2]
    inverse = depth.reciprocal()
    a = problem.affine[:, :, :, None, None]
    u = (a[:, 0, 0] * p[:, :, 0] + a[:, 0, 1] * p[:, :, 1]) * inverse - problem.x[:, :1]
    v = (a[:, 1, 0] * p[:, :, 0] + a[:, 1, 1] * p[:, :, 1]) * inverse - problem.x[:, 1:]
    square = torch.where(depth > 0, u * u + v * v, torch.inf).minimum(limit[:, None])
    present = (problem.c > 0).to(square)
    score = torch.bmm(square, present[:, :, None]).squeeze(-1)
    return torch.where(score.isfinite(), score, torch.inf)


def _fitted(problem: Problem, found: Consensus, threshold: Tensor) -> Consensus:
    """Local optimisation: the pose fitted to its inliers, where that has a better score."""
    for factor, steps in _FITS:
        agree = residual2(problem, found.R, found.t) <= (factor * threshold) ** 2
        fit = refine(_restricted(problem, agree), found.R, found.t, steps)
        score = residual2(problem, fit.R, fit.t).minimum(threshold**2)
        score = torch.where(problem.c > 0, score, 0.0).sum(-1)
        score = torch.where(agree.sum(-1) > MINIMAL, score, torch.inf)
        found = found.better_of(Consensus(fit.R, fit.t, score))
    return found


def _restricted(problem: Problem, agree: Tensor) -> Problem:
    """The same problem on these points alone; the weights then no longer sum to one, which refinement does not need."""
    z = torch.where(agree[:, None], problem.z, 0.0)
    return Problem(problem.x, z, problem.affine, torch.where(agree, problem.c, 0.0))


def _settled(problem: Problem, found: Consensus, threshold: Tensor, options: SampleConsensus, done: int) -> Tensor:
    """Whether `done` samples hold one without outliers, with the confidence asked for, `(B,)`."""
    agree = (residual2(problem, found.R, found.t) <= threshold**2).sum(-1)
    total = (problem.c > 0).sum(-1)
    share = _subsets(agree.double(), options.sample) / _subsets(total.double(), options.sample).clamp_min(1)
    missing = done / _MORE * torch.log1p(-share.clamp(0, 1 - 1e-12))
    return missing < math.log1p(-options.confidence)


def _subsets(count: Tensor, size: int) -> Tensor:
    """Number of subsets of a size."""
    product = torch.ones_like(count)
    for k in range(size):
        product = product * (count - k).clamp_min(0) / (k + 1)
    return product
