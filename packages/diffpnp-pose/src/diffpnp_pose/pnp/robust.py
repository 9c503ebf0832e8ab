"""Two answers to outliers: Huber's loss, and sample consensus over a whole batch at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.pnp.initial import shape_of, weak_perspective
from diffpnp_pose.pnp.linearise import Problem, camera_points
from diffpnp_pose.pnp.problem import LEAST_POINTS
from diffpnp_pose.pnp.refine import refine

_HYPOTHESIS_STEPS = 4
_POLISH_STEPS = 4


@dataclass(frozen=True)
class Huber:
    """Minimise Huber's function of every residual length instead of half its square.

    Attributes:
        delta: residual in pixels from which the loss grows linearly.
    """

    delta: float = 2.0

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"Huber needs a positive delta in pixels, got {self.delta}")


@dataclass(frozen=True)
class SampleConsensus:
    """Find the inliers first, from the poses of many small samples, then minimise over the inliers alone.

    The samples are the same for every item and every call, so that the result is deterministic and no item depends on
    another. The choice of inliers is constant for the gradient.

    Attributes:
        threshold: largest residual of an inlier, in pixels.
        hypotheses: number of samples per item.
        sample: points per sample; needs 4 or more, 5 make the sample's own pose nearly unique.
    """

    threshold: float = 3.0
    hypotheses: int = 64
    sample: int = 4

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"SampleConsensus needs a positive threshold in pixels, got {self.threshold}")
        if self.hypotheses < 1 or self.sample < LEAST_POINTS:
            raise ValueError(f"SampleConsensus needs hypotheses >= 1 and sample >= {LEAST_POINTS}, got {self}")


def inliers(problem: Problem, threshold: Tensor, options: SampleConsensus) -> Tensor:
    """Inliers of the best sample's pose.

    Every sample gives a pose from each of its two weak-perspective solutions; poses are ranked by the truncated squared
    residuals of all points (MSAC), and the best is refined on its inliers before they are counted again.

    Args:
        problem: the normalised problems, squared residuals.
        threshold: largest residual of an inlier in normalised units, `(B, 1)`.
        options: the number and size of the samples.

    Returns:
        Which points agree with the pose, `(B, n)`.
    """
    batch, rows = problem.c.shape[0], torch.arange(problem.c.shape[0], device=problem.c.device)
    R, t = _hypotheses(problem, options)
    repeats = 2 * options.hypotheses
    score = _truncated(problem.select(rows.repeat(repeats)), R, t, threshold.repeat(repeats, 1))
    best = score.view(repeats, batch).argmin(0) * batch + rows
    R, t = R[best], t[best]
    agree = _residual2(problem, R, t) <= threshold**2
    polished = refine(_restricted(problem, agree), R, t, _POLISH_STEPS)
    better = _truncated(problem, polished.R, polished.t, threshold) <= _truncated(problem, R, t, threshold)
    return torch.where(better[:, None], _residual2(problem, polished.R, polished.t) <= threshold**2, agree)


def _hypotheses(problem: Problem, options: SampleConsensus) -> tuple[Tensor, Tensor]:
    """Poses of all samples: rotations `(2 S B, 3, 3)` and translations `(2 S B, 3)`, items fastest."""
    picked = _samples(problem.c, options)
    index = torch.arange(problem.c.shape[0], device=problem.c.device).repeat(len(picked))
    picked = picked.flatten(0, 1)[:, None]
    z = problem.z[index].gather(2, picked.expand(-1, 3, -1))
    x = problem.x[index].gather(2, picked.expand(-1, 2, -1))
    c = (problem.c[index].gather(1, picked[:, 0]) > 0).to(z.dtype)
    c = c / c.sum(-1, keepdim=True)
    centre = (c[:, None] * z).sum(-1)
    small = Problem(x, z - centre[..., None], problem.affine[index], c)
    shape = shape_of(small.z, small.c)
    first, second = (weak_perspective(small, shape, mirrored) for mirrored in (False, True))
    both = torch.arange(len(c), device=c.device).repeat(2)
    found = refine(
        small.select(both), torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), _HYPOTHESIS_STEPS
    )
    return found.R, found.t - (found.R @ centre.repeat(2, 1)[..., None]).squeeze(-1)


def _samples(c: Tensor, options: SampleConsensus) -> Tensor:
    """Indices `(S, B, k)` of k points per sample, present ones first: the k smallest of fixed random keys."""
    keys = _keys(options.hypotheses, c.shape[1], c.dtype, c.device)
    keys = torch.where(c > 0, keys, keys + 1)
    return keys.topk(min(options.sample, c.shape[1]), largest=False).indices


@functools.cache
@torch.inference_mode(False)
def _keys(hypotheses: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Fixed random numbers `(S, 1, n)` in [0, 1); kept, since copying them would wait for the device."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(hypotheses, 1, n, generator=generator, dtype=torch.float64).to(device, dtype)


def _residual2(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """Squared residuals `(B, n)`, infinite for points that are absent or behind the camera."""
    _, inverse, u, _ = camera_points(problem, R, t)
    square = (u - problem.x).square().sum(1)
    return torch.where((problem.c > 0) & (inverse[:, 0] > 0), square, torch.inf).nan_to_num(nan=torch.inf)


def _truncated(problem: Problem, R: Tensor, t: Tensor, threshold: Tensor) -> Tensor:
    """MSAC score `(B,)`: squared residuals, each at most the squared threshold."""
    return _residual2(problem, R, t).minimum(threshold**2).sum(-1)


def _restricted(problem: Problem, agree: Tensor) -> Problem:
    """The same problem on these points alone; the weights then no longer sum to one, which refinement does not need."""
    z = torch.where(agree[:, None], problem.z, 0.0)
    return Problem(problem.x, z, problem.affine, torch.where(agree, problem.c, 0.0))
