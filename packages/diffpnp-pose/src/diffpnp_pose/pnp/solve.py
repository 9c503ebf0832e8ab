"""`solve_pnp`: poses from point correspondences, batched and differentiable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from diffpnp_pose.geometry import so3_exp, so3_log
from diffpnp_pose.pnp.candidates import best_of, minimise, solve_algebraic, solve_auto, solve_weak_perspective
from diffpnp_pose.pnp.epnp import control_point_poses
from diffpnp_pose.pnp.implicit import ImplicitPose, Solution, reprojection_rule
from diffpnp_pose.pnp.initial import Shape, shape_of
from diffpnp_pose.pnp.linearise import Problem, linearise
from diffpnp_pose.pnp.problem import Frame, Inputs, gather_inputs, normalise
from diffpnp_pose.pnp.published import published_rule
from diffpnp_pose.pnp.refine import Estimate, rotated
from diffpnp_pose.pnp.result import PnPResult
from diffpnp_pose.pnp.robust import Huber, SampleConsensus, inliers

Init = Literal["auto", "weak_perspective", "epnp", "sqpnp"]
Backward = Literal["exact", "gauss_newton", "unrolled", "none"]
Constraint = Literal["reprojection", "bpnp"]

_INITS = ("auto", "weak_perspective", "epnp", "sqpnp")
_BACKWARDS = ("exact", "gauss_newton", "unrolled", "none")
_CONSTRAINTS = ("reprojection", "bpnp")
_LEAST_PIVOT = 1e-12  # of the Hessian scaled to a unit diagonal; under it a direction of the pose is undetermined
_UNROLLED_STEPS = 2


def solve_pnp(
    points_2d: Tensor,
    points_3d: Tensor,
    K: Tensor,
    *,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    init: Init | Tensor = "auto",
    robust: Huber | SampleConsensus | None = None,
    backward: Backward = "exact",
    constraint: Constraint = "reprojection",
) -> PnPResult:
    """Poses that minimise the weighted reprojection error, with gradients for every input.

    Solves `min_(R, t) 1/2 sum_i c_i |x_i - project(R z_i + t)|^2` for every item of a batch at once. Batched
    Levenberg-Marquardt steps end in Newton steps with the exact Hessian, so that the pose is a minimum to rounding;
    the gradient is the closed form of the implicit function theorem (one 6x6 solve per item).

    A bad item never raises and never touches another one: with fewer than four points, collinear points, numbers that
    are not finite, negative weights, a point behind the camera, or no convergence, its `valid` is False and its
    gradient is exactly zero. Where the inputs were unusable its pose is the identity at `t = (0, 0, 1)` and its cost
    is infinite; otherwise pose and cost are the best found.

    Computation is in float64 whatever the inputs, autocast included (float32 on devices without float64); results have
    the promoted floating type of the points, at least float32.

    Args:
        points_2d: image points in pixels, `(..., n, 2)`, `n >= 4`.
        points_3d: object points, `(..., n, 3)`; translations come out in their unit. Leading dimensions of all
            arguments broadcast, so one object `(n, 3)` may serve a whole batch.
        K: camera matrices, `(..., 3, 3)`, third row `(0, 0, 1)`.
        weights: nonnegative point weights, `(..., n)`; inverse variances in squared pixels, for a covariance that
            means what it says.
        mask: which points are present, boolean, `(..., n)`; the others may hold anything.
        init: where the search starts. "auto": one weak-perspective pose, and more starts for flat objects, up to five
            points and poor fits; "weak_perspective": both such poses; "sqpnp": the two best minima of the algebraic
            error over all rotations; "epnp": EPnP; or a pose `(..., 6)` to refine, never differentiated.
        robust: None, `Huber(delta)` or `SampleConsensus(threshold)`.
        backward: "exact" gradient of the minimum; "gauss_newton" without second derivatives of the projection (with
            `constraint="bpnp"` the published "faster" variant); "unrolled" records two Newton steps at the minimum for
            autograd, which gives the exact gradient and higher derivatives too; "none".
        constraint: "reprojection", the true stationarity condition, or "bpnp", the depth-weighted one of the code
            published with Chen et al. (2020), whose result is not the gradient of the minimum.

    Returns:
        Poses, rotations, translations, costs, covariances, iteration counts and validity of all items.

    Raises:
        ValueError: shapes do not fit, n < 4, an option is unknown, or K is singular (checked for a K on the CPU;
            elsewhere reading it would stall the device, and such an item is invalid instead).
    """
    _check_options(init, robust, backward, constraint)
    with torch.autocast(points_2d.device.type, enabled=False):
        inputs = gather_inputs(points_2d, points_3d, K, weights, mask)
        fixed = _detached(inputs)
        with torch.no_grad():
            if isinstance(robust, SampleConsensus):
                fixed = _keep_inliers(fixed, robust)
            problem, frame = _with_huber(*normalise(fixed), robust)
            found, solution = _solve(problem, frame, init, inputs)
        if isinstance(robust, SampleConsensus):
            inputs = replace(inputs, c=torch.where(fixed.c == 0, 0.0, inputs.c))
        pose, R = _differentiate(inputs, fixed, solution, robust, backward, constraint)
    return _result(inputs, solution, found, pose, R)


def _check_options(
    init: Init | Tensor, robust: Huber | SampleConsensus | None, backward: Backward, constraint: Constraint
) -> None:
    if not isinstance(init, Tensor) and init not in _INITS:
        raise ValueError(f"init must be a pose (..., 6) or one of {', '.join(_INITS)}; got {init!r}")
    if robust is not None and not isinstance(robust, Huber | SampleConsensus):
        raise ValueError(f"robust must be None, Huber(delta) or SampleConsensus(threshold); got {robust!r}")
    if backward not in _BACKWARDS:
        raise ValueError(f"backward must be one of {', '.join(_BACKWARDS)}; got {backward!r}")
    if constraint not in _CONSTRAINTS:
        raise ValueError(f"constraint must be one of {', '.join(_CONSTRAINTS)}; got {constraint!r}")
    if constraint == "bpnp" and (backward == "unrolled" or isinstance(robust, Huber)):
        raise ValueError('constraint="bpnp" is defined for backward "exact" or "gauss_newton" and squared residuals')


def _detached(inputs: Inputs) -> Inputs:
    parts = {name: getattr(inputs, name).detach() for name in ("x", "z", "K", "c")}
    return replace(inputs, **parts)


def _keep_inliers(inputs: Inputs, options: SampleConsensus) -> Inputs:
    problem, frame = normalise(inputs)
    agree = inliers(problem, options.threshold / frame.focal, options)
    # an unusable item keeps what makes it unusable
    return replace(inputs, c=torch.where(agree | ~frame.usable[:, None], inputs.c, 0.0))


def _with_huber(problem: Problem, frame: Frame, robust: Huber | SampleConsensus | None) -> tuple[Problem, Frame]:
    return (replace(problem, delta=robust.delta / frame.focal) if isinstance(robust, Huber) else problem), frame


def _solve(problem: Problem, frame: Frame, init: Init | Tensor, inputs: Inputs) -> tuple[Estimate, Solution]:
    """Minimise every item and say which results can be trusted."""
    shape = shape_of(problem.z, problem.c)
    found = _search(problem, frame, shape, init, inputs)
    usable = frame.usable & ~shape.collinear
    valid = usable & found.converged & found.cost.isfinite() & _determined(found.hessian)
    translation = frame.translation(found.R, found.t)
    keep = (usable & translation.isfinite().all(-1))[:, None]
    eye = torch.eye(3, dtype=found.R.dtype, device=found.R.device)
    R, translation = torch.where(keep[..., None], found.R, eye), torch.where(keep, translation, eye[2])
    found = replace(found, cost=torch.where(keep[:, 0], found.cost, torch.inf))
    pose = torch.cat([so3_log(R), translation], -1)
    return found, Solution(problem, frame, R, found.t, pose, valid, found.hessian)


def _search(problem: Problem, frame: Frame, shape: Shape, init: Init | Tensor, inputs: Inputs) -> Estimate:
    if isinstance(init, Tensor):
        pose = _start(init, inputs)
        R = so3_exp(torch.where(frame.usable[:, None], pose[:, :3], 0.0))
        t = (pose[:, 3:] + (R @ frame.centre[..., None]).squeeze(-1)) / frame.radius
        ahead = 4 * torch.eye(3, dtype=t.dtype, device=t.device)[2]
        return minimise(problem, R, torch.where(frame.usable[:, None], t, ahead))
    if init == "weak_perspective":
        return solve_weak_perspective(problem, shape)
    if init == "sqpnp":
        return solve_algebraic(problem)
    if init == "epnp":
        return best_of(problem, [control_point_poses(problem)])
    return solve_auto(problem, shape)


def _start(init: Tensor, inputs: Inputs) -> Tensor:
    """The caller's start poses, `(B, 6)`."""
    try:
        return init.detach().to(inputs.x).expand(*inputs.batch, 6).reshape(-1, 6)
    except RuntimeError:
        wanted = (*inputs.batch, 6)
        raise ValueError(f"init must have a shape that expands to {wanted}, got {tuple(init.shape)}") from None


def _determined(hessian: Tensor) -> Tensor:
    """Whether the Hessian is positive definite with no direction lost to rounding, `(B,)`."""
    scale = hessian.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    factor, info = torch.linalg.cholesky_ex(hessian * scale[:, :, None] * scale[:, None])
    return (info == 0) & (factor.diagonal(dim1=1, dim2=2).square().amin(-1) > _LEAST_PIVOT)


def _differentiate(
    inputs: Inputs,
    fixed: Inputs,
    solution: Solution,
    robust: Huber | SampleConsensus | None,
    backward: Backward,
    constraint: Constraint,
) -> tuple[Tensor, Tensor]:
    """Pose `(B, 6)` and rotations `(B, 3, 3)` as functions of the inputs."""
    tracked = (inputs.x, inputs.z, inputs.K, inputs.c)
    if backward == "none" or not (torch.is_grad_enabled() and any(value.requires_grad for value in tracked)):
        return solution.pose, solution.R
    if backward == "unrolled":
        return _unroll(inputs, solution, robust)
    exact = backward == "exact"
    rule = partial(published_rule, fixed, exact) if constraint == "bpnp" else partial(reprojection_rule, exact)
    return ImplicitPose.apply(*tracked, solution, rule)


def _unroll(inputs: Inputs, solution: Solution, robust: Huber | SampleConsensus | None) -> tuple[Tensor, Tensor]:
    """Newton steps at the solution, recorded; each squares the error, so two carry three derivatives exactly."""
    problem, frame = _with_huber(*normalise(inputs), robust)
    R, t = solution.R.detach(), solution.t.detach()
    for _ in range(_UNROLLED_STEPS):
        local = linearise(problem, R, t)
        step = -torch.linalg.solve_ex(local.hessian, local.gradient)[0]
        R, t = rotated(R, step[:, :3]), t + step[:, 3:]
    translation = frame.translation(R, t)
    valid = solution.valid[:, None]
    pose = torch.where(valid, torch.cat([so3_log(R), translation], -1), solution.pose)
    return pose, torch.where(valid[..., None], R, solution.R)


def _result(inputs: Inputs, solution: Solution, found: Estimate, pose: Tensor, R: Tensor) -> PnPResult:
    batch, dtype = inputs.batch, inputs.dtype
    return PnPResult(
        pose=pose.to(dtype).view(*batch, 6),
        R=R.to(dtype).view(*batch, 3, 3),
        cost=solution.frame.pixels2(found.cost).to(dtype).view(batch),
        iterations=found.iterations.view(batch),
        valid=solution.valid.view(batch),
        solution=solution,
    )
