"""Batched Levenberg-Marquardt that ends in Newton's method with the exact Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.devices import kept, readable
from diffpnp_pose.pnp.linearise import Local, Problem, linearise

_GAUSS_NEWTON_STEPS = 1  # away from the optimum the exact Hessian may be indefinite
_FIRST_DAMPING, _LAST_DAMPING = 1e-4, 1e9
_EASIER, _HARDER = 0.1, 20.0
_LEAST_PIVOT = 1e-12  # of the Hessian scaled to a unit diagonal; under it a direction of the pose is undetermined
_GROUP = 8  # items; eight of anything in float64 fill whole cache lines
_NEWTON_DAMPING = 1e-3  # a short step means convergence only where it is (nearly) Newton's


@dataclass
class Estimate:
    """Poses of a batch of normalised problems.

    Attributes:
        R: rotations, `(B, 3, 3)`.
        t: translations in object radii, `(B, 3)`.
        cost: costs, `(B,)`; infinite with a point behind the camera.
        converged: whether the last step was short enough for the next error to be rounding, `(B,)`.
        iterations: steps tried, `(B,)`.
        hessian: Hessian of the cost in tangent coordinates, `(B, 6, 6)`; exact where converged.
    """

    R: Tensor
    t: Tensor
    cost: Tensor
    converged: Tensor
    iterations: Tensor
    hessian: Tensor

    def select(self, index: Tensor) -> Estimate:
        """The estimates at these positions of the batch."""
        return Estimate(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def step_tolerance(dtype: torch.dtype) -> float:
    """Step (radians, object radii) under which Newton's next error is below rounding."""
    return 1e-6 if dtype == torch.float64 else 3e-4


@kept
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The 6x6 identity, and the `(3, 9)` map from a vector to the cross-product matrix of its half."""
    hat = torch.zeros(3, 3, 3, dtype=dtype)
    for i, j, k in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        hat[i, j, k], hat[i, k, j] = 0.5, -0.5
    return torch.eye(6, dtype=dtype, device=device), hat.view(3, 9).to(device)


def rotated(R: Tensor, d: Tensor) -> Tensor:
    """Rotations `(B, 3, 3)` followed by rotations of about `d (B, 3)`, equal to `exp([d]x) R` up to third order.

    The Cayley transform `I + 2/(1 + |h|^2) ([h]x + [h]x^2)` of `h = d/2`: a rotation, without sine or cosine.
    """
    hat = torch.mm(d, _constants(d.dtype, d.device)[1]).view(-1, 3, 3)
    once = torch.bmm(hat, R)
    return R + (8 / (4 + (d * d).sum(-1)))[:, None, None] * torch.baddbmm(once, hat, once)


def refine(problem: Problem, R: Tensor, t: Tensor, iterations: int, warm: bool = False) -> Estimate:
    """Minimise the reprojection cost of every item from the given poses.

    An item that has converged is frozen, and no item ever looks at another. On a CPU the loop ends once all items are
    frozen, which changes no result; elsewhere the count is fixed, so that the host never waits for the device.

    Args:
        problem: the problems.
        R: start rotations, `(B, 3, 3)`.
        t: start translations in object radii, `(B, 3)`.
        iterations: most steps to try.
        warm: the start is near a minimum; leave out the Gauss-Newton steps.

    Returns:
        The minimisers.
    """
    on_host = readable(R)
    cautious = 0 if warm else _GAUSS_NEWTON_STEPS
    local = linearise(problem, R, t, exact=warm)
    damping = torch.full_like(local.cost, _FIRST_DAMPING)
    active = torch.ones_like(local.cost, dtype=torch.bool)
    converged, count = ~active, torch.zeros_like(local.cost, dtype=torch.long)
    tolerance = step_tolerance(R.dtype)
    for i in range(iterations):
        step = damped_step(local, damping)
        new_R, new_t = rotated(R, step[:, :3]), t + step[:, 3:]
        trial = linearise(problem, new_R, new_t, exact=i >= cautious - 1)
        accept = active & (trial.cost <= local.cost + _rounding(local.cost))
        if all_accepted := on_host and bool(accept.all()):  # the same values in fewer operations
            R, t, local = new_R, new_t, trial
        else:
            R, t = torch.where(accept[:, None, None], new_R, R), torch.where(accept[:, None], new_t, t)
            local = _keep(accept, trial, local)
        count = count + active
        if i >= cautious:
            converged = converged | (accept & (step.abs().amax(-1) < tolerance) & (damping < _NEWTON_DAMPING))
        easier = damping * _EASIER
        damping = easier if all_accepted else torch.where(accept, easier, damping * _HARDER)
        active = active & ~converged & (damping < _LAST_DAMPING)
        if on_host and not active.any():
            break
    return Estimate(R, t, local.cost, converged, count, local.hessian)


def _rounding(cost: Tensor) -> Tensor:
    """By how much two evaluations of one cost may differ: residuals carry the rounding of coordinates of order one."""
    eps = 10 * torch.finfo(cost.dtype).eps
    return eps * (cost + cost.sqrt() + eps)


def damped_step(local: Local, damping: Tensor) -> Tensor:
    """Levenberg-Marquardt steps `(B, 6)` with damping `(B,)` relative to the Hessian's diagonal."""
    hessian = local.hessian
    eye, _ = _constants(hessian.dtype, hessian.device)
    raised = hessian + hessian.abs() * (eye * damping[:, None, None])
    return -torch.linalg.solve_ex(raised, local.gradient)[0]


def _keep(accept: Tensor, new: Local, old: Local) -> Local:
    return Local(torch.where(accept, new.cost, old.cost), torch.where(accept[:, None, None], new.system, old.system))


def determined(hessian: Tensor) -> Tensor:
    """Whether the Hessian is positive definite with no direction lost to rounding, `(B,)`."""
    scale = hessian.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    factor, info = torch.linalg.cholesky_ex(hessian * scale[:, :, None] * scale[:, None])
    return (info == 0) & (factor.diagonal(dim1=1, dim2=2).square().amin(-1) > _LEAST_PIVOT)


def groups_with(flags: Tensor) -> Tensor:
    """Positions of all items in those groups of `_GROUP` neighbours that hold a flagged item.

    Whole groups keep every item's matrices at the same alignment in memory. Matrix products round differently at
    different alignments, and an item's result must not depend on which other items are flagged.
    """
    size = flags.shape[0]
    padded = torch.nn.functional.pad(flags, (0, -size % _GROUP))
    groups = padded.view(-1, _GROUP).any(-1).nonzero()
    return (groups * _GROUP + torch.arange(_GROUP, device=flags.device)).flatten().clamp_max(size - 1)
