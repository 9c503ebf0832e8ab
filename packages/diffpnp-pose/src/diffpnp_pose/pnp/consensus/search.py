"""The pose with the most consensus, item by item."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffpnp_pose.devices import readable
from diffpnp_pose.pnp.consensus.evidence import settled
from diffpnp_pose.pnp.consensus.samples import hypotheses
from diffpnp_pose.pnp.consensus.scoring import residual2, scores
from diffpnp_pose.pnp.linearise import Problem
from diffpnp_pose.pnp.refine import groups_with, refine
from diffpnp_pose.pnp.robust import MINIMAL, SampleConsensus
from diffpnp_pose.pnp.starts.algebraic import nearest_rotation
from diffpnp_pose.pnp.starts.orthographic import present_first, rays_of

_ROUNDS = (16, 16, 32)  # samples between two looks at whether it is enough; the last size repeats
_FITS = ((1.5, 3), (1.0, 3))  # local optimisation: threshold relative to the caller's, and steps


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
            wanted = wanted & ~settled(problem, best.R, best.t, threshold, options, done)
            rows = groups_with(wanted) if wanted.any() else rows[:0]
    best = _fitted(problem, best, threshold)
    return best, residual2(problem, best.R, best.t) <= threshold**2


def _existing(R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Poses `(B, H, ...)` without places in which no item has one; about half of the solutions do not exist."""
    if not readable(t):
        return R, t
    none = t[..., 0].isnan()
    most = int((~none).sum(1).max()) if none.numel() else 0
    order = none.to(torch.uint8).argsort(dim=1, stable=True)[:, : max(most, 1), None]
    return R.gather(1, order[..., None].expand(-1, -1, 3, 3)), t.gather(1, order.expand(-1, -1, 3))


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
    R, t = _existing(*hypotheses(problem, rays, order, options, numbers))
    score = scores(problem, threshold, R, t)
    best = score.argmin(1)
    rows = torch.arange(best.shape[0], device=best.device)
    R, score = R[rows, best], score[rows, best]
    none = score.isinf()
    start = _nothing(problem)
    R = torch.where(none[:, None, None], start.R, nearest_rotation(R))
    return Consensus(R, torch.where(none[:, None], start.t, t[rows, best]), score)


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
