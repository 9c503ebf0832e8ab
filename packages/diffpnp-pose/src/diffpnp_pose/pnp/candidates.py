"""From start poses to the best local minimum of every item."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffpnp_pose.devices import readable
from diffpnp_pose.pnp.linearise import Problem
from diffpnp_pose.pnp.refine import Estimate, determined, groups_with, refine
from diffpnp_pose.pnp.starts.algebraic import algebraic_minima
from diffpnp_pose.pnp.starts.minimal import minimal_poses
from diffpnp_pose.pnp.starts.orthographic import APART, Shape, weak_perspective

_COMMON_STEPS = 6  # enough for nearly all items; the rest go on by themselves
_MOST_STEPS = 50
_DEVICE_STEPS = 16  # off the CPU the count is fixed
_POOR_FIT = 0.25  # residual over the spread of the image points from which another minimum is looked for
_FEW_TO_COMPARE = 16  # points up to which all pairs are looked at
_ALIKE, _ROUNDING = 1e-6, 1e-24  # relative and least difference between the costs of two minima
_FEW_POINTS = 5  # up to here several minima are common


def minimise(problem: Problem, R: Tensor, t: Tensor) -> Estimate:
    """Refine every item to convergence; on a CPU the few slow ones go on without the others.

    Converged are items whose minimum is `determined` too.
    """
    if not readable(R):
        result = refine(problem, R, t, _DEVICE_STEPS)
    else:
        result = refine(problem, R, t, _COMMON_STEPS)
        slow = ~result.converged
        if slow.any():
            part = groups_with(slow)
            longer = refine(problem.select(part), result.R[part], result.t[part], _MOST_STEPS, warm=True)
            longer.iterations += result.iterations[part]
            _replace(result, part, slow[part], longer)
    return replace(result, converged=result.converged & determined(result.hessian))


def best_of(problem: Problem, starts: list[tuple[Tensor, Tensor]]) -> Estimate:
    """Refine several start poses `(R (B, 3, 3), t (B, 3))` per item and keep the cheapest result of each."""
    s, batch = len(starts), starts[0][0].shape[0]
    index = torch.arange(batch, device=starts[0][0].device)
    found = minimise(problem.select(index.repeat(s)), *(torch.cat(part) for part in zip(*starts, strict=True)))
    return found.select(_comparable(found).view(s, batch).argmin(0) * batch + index)


def solve_weak_perspective(problem: Problem, shape: Shape) -> Estimate:
    """The better of the minima next to the two weak-perspective solutions."""
    return best_of(problem, [weak_perspective(problem, shape), weak_perspective(problem, shape, mirrored=True)])


def solve_algebraic(problem: Problem) -> Estimate:
    """The better of the minima next to the two best solutions of the algebraic error.

    Up to five points, whose algebraic error has wide and shallow valleys, also start from the poses of three of them.
    """
    starts = list(zip(*algebraic_minima(problem), strict=True))
    if not readable(problem.c) or _few(problem).any():
        starts += zip(*minimal_poses(problem), strict=True)
    return best_of(problem, starts)


def solve_auto(problem: Problem, shape: Shape) -> Estimate:
    """One weak-perspective start; where its minimum may not be the least one, the other starts too.

    Flat objects, up to five points, poor fits, saddles and items that have not converged get them. Off the CPU, where
    looking at an item would stall the device, every item does.
    """
    if not readable(shape.flat):
        return best_of(problem, all_starts(problem, shape))
    result = minimise(problem, *weak_perspective(problem, shape))
    hard = shape.flat | _few(problem) | _poor(problem, result) | ~result.converged | _repeated(problem)
    if hard.any():
        part = groups_with(hard)
        chosen = problem.select(part)
        other = best_of(chosen, _other_starts(chosen, shape.select(part)))
        _replace(result, part, hard[part] & (_comparable(other) < _comparable(result)[part]), other)
    return result


def all_starts(problem: Problem, shape: Shape) -> list[tuple[Tensor, Tensor]]:
    """Every start pose that `solve_auto` may try."""
    return [weak_perspective(problem, shape), *_other_starts(problem, shape)]


def _other_starts(problem: Problem, shape: Shape) -> list[tuple[Tensor, Tensor]]:
    starts = [weak_perspective(problem, shape, mirrored=True), *zip(*algebraic_minima(problem), strict=True)]
    return [*starts, *zip(*minimal_poses(problem), strict=True)]


def _few(problem: Problem) -> Tensor:
    return (problem.c > 0).sum(-1) <= _FEW_POINTS


def _repeated(problem: Problem) -> Tensor:
    """Whether points coincide, so that there are fewer than it seems; looked at where there are not many, `(B,)`."""
    z, n = problem.z, problem.z.shape[2]
    if n > _FEW_TO_COMPARE:
        return torch.zeros_like(problem.c[:, 0], dtype=torch.bool)
    square = (z * z).sum(1)
    apart = square[:, :, None] + square[:, None] - 2 * torch.bmm(z.mT, z)
    return (apart < APART**2).flatten(1).sum(1) > n


def _poor(problem: Problem, found: Estimate) -> Tensor:
    c = problem.c[:, None]
    centred = problem.x - (c * problem.x).sum(-1, keepdim=True)
    return 2 * found.cost > _POOR_FIT**2 * (c * centred * centred).sum((1, 2))


def _comparable(found: Estimate) -> Tensor:
    """Costs to choose by: of starts that lead to one minimum, one that has converged."""
    cost = found.cost.nan_to_num(nan=torch.inf)
    return torch.where(found.converged, cost, cost * (1 + _ALIKE) + _ROUNDING)


def _replace(target: Estimate, index: Tensor, wanted: Tensor, source: Estimate) -> None:
    """Write the wanted items of the source over the target's at these positions."""
    for name in target.__dataclass_fields__:
        getattr(target, name)[index[wanted]] = getattr(source, name)[wanted]
