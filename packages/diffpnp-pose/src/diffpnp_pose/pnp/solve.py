"""`solve_pnp`: poses from point correspondences, batched and differentiable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from diffpnp_pose.devices import plain
from diffpnp_pose.distortion import Distortion, undistort_points
from diffpnp_pose.geometry.rotations import so3_exp, so3_log
from diffpnp_pose.pnp.candidates import best_of, minimise, solve_algebraic, solve_auto, solve_weak_perspective
from diffpnp_pose.pnp.consensus.evidence import enough
from diffpnp_pose.pnp.consensus.search import find_consensus
from diffpnp_pose.pnp.gradients.implicit import ImplicitPose, Solution, reprojection_rule
from diffpnp_pose.pnp.gradients.published import published_rule
from diffpnp_pose.pnp.linearise import Problem, linearise
from diffpnp_pose.pnp.problem import Frame, Inputs, check_tensors, gather_inputs, normalise, resolved
from diffpnp_pose.pnp.refine import Estimate, rotated
from diffpnp_pose.pnp.result import PnPResult
from diffpnp_pose.pnp.robust import Huber, SampleConsensus
from diffpnp_pose.pnp.starts.control_points import control_point_poses
from diffpnp_pose.pnp.starts.orthographic import Shape, enough_points, shape_of

Init = Literal["auto", "weak_perspective", "epnp", "sqpnp"]
Backward = Literal["exact", "gauss_newton", "unrolled", "none"]
Constraint = Literal["reprojection", "bpnp"]

_INITS = ("auto", "weak_perspective", "epnp", "sqpnp")
_BACKWARDS = ("exact", "gauss_newton", "unrolled", "none")
_CONSTRAINTS = ("reprojection", "bpnp")
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
    distortion: Distortion | None = None,
) -> PnPResult:
    """Poses that minimise the weighted reprojection error, with gradients for every input.

    Solves `min_(R, t) 1/2 sum_i c_i |x_i - project(R z_i + t)|^2` for every item of a batch at once. Batched
    Levenberg-Marquardt steps end in Newton steps with the exact Hessian, so that the pose is a minimum to rounding;
    the gradient is the closed form of the implicit function theorem (one 6x6 solve per item).

    A bad item never raises and never touches another one: with fewer than four distinct points, collinear points,
    numbers that are not finite, negative weights, points in float32 or less so far from the origin that rounding has
    moved them, a point behind the camera, or no convergence, its `valid` is False and its gradient is exactly zero.
    Where the inputs were unusable its pose is the identity at `t = (0, 0, 1)` and its cost
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
            error over all rotations, and up to five points two poses of three of them; "epnp": EPnP; or a pose
            `(..., 6)` to refine, never differentiated.
        robust: None, `Huber(delta)` or `SampleConsensus(threshold)`. With the latter the search starts from the pose of
            the consensus, and from `init` where that is a pose.
        backward: "exact" gradient of the minimum; "gauss_newton" without second derivatives of the projection (with
            `constraint="bpnp"` the published "faster" variant); "unrolled" records two Newton steps at the minimum for
            autograd, which gives the exact gradient and higher derivatives too; "none".
        constraint: "reprojection", the true stationarity condition, or "bpnp", the depth-weighted one of the code
            published with Chen et al. (2020), whose result is not the gradient of the minimum.
        distortion: that of the lens. Image points are moved first to where a camera without it would show them, and the
            error is measured there; `cost` and residuals are those of the undistorted image. Gradients reach the
            coefficients too.

    Returns:
        Poses, rotations, translations, costs, covariances, iteration counts and validity of all items.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: shapes or devices do not fit, n < 4, an option is unknown, or K is singular (checked for a K on the
            CPU; elsewhere reading it would stall the device, and such an item is invalid instead).
    """
    _check_options(init, robust, backward, constraint)
    check_tensors(points_2d, points_3d, K, weights, mask)
    if distortion is not None:
        points_2d = undistort_points(points_2d, K, distortion)
    with torch.autocast(points_2d.device.type, enabled=False):
        inputs = gather_inputs(points_2d, points_3d, K, weights, mask)
        fixed = _detached(inputs)
        with torch.no_grad():
            agreed = None
            if isinstance(robust, SampleConsensus):
                fixed, agreed = _keep_inliers(fixed, robust)
            problem, frame = _with_huber(*normalise(fixed), robust)
            found, solution = _solve(problem, frame, init, inputs, agreed)
        if agreed is not None:
            inputs = replace(inputs, c=torch.where(fixed.c == 0, 0.0, inputs.c))
        pose, R = _differentiate(inputs, fixed, solution, robust, backward, constraint)
    return _result(inputs, solution, found, pose, R)


def _check_options(
    init: Init | Tensor, robust: Huber | SampleConsensus | None, backward: Backward, constraint: Constraint
) -> None:
    if not isinstance(init, Tensor) and not (isinstance(init, str) and init in _INITS):
        got = repr(init) if isinstance(init, str) else type(init).__name__
        raise ValueError(f"init must be a pose tensor (..., 6) or one of {', '.join(_INITS)}; got {got}")
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


@dataclass
class _Agreed:
    """What sample consensus found: poses in the caller's units, and whether enough points agree, `(B,)`."""

    R: Tensor
    t: Tensor
    enough: Tensor


def _keep_inliers(inputs: Inputs, options: SampleConsensus) -> tuple[Inputs, _Agreed]:
    problem, frame = normalise(inputs)
    threshold = options.threshold / frame.focal
    best, agree = find_consensus(problem, threshold, options)
    agreed = _Agreed(best.R, frame.translation(best.R, best.t), enough(problem, agree, threshold, options))
    # an unusable item keeps what makes it unusable
    return replace(inputs, c=torch.where(agree | ~frame.usable[:, None], inputs.c, 0.0)), agreed


def _with_huber(problem: Problem, frame: Frame, robust: Huber | SampleConsensus | None) -> tuple[Problem, Frame]:
    return (replace(problem, delta=robust.delta / frame.focal) if isinstance(robust, Huber) else problem), frame


def _solve(
    problem: Problem, frame: Frame, init: Init | Tensor, inputs: Inputs, agreed: _Agreed | None
) -> tuple[Estimate, Solution]:
    """Minimise every item and say which results can be trusted."""
    shape = shape_of(problem.z, problem.c)
    found = _search(problem, frame, shape, init, inputs, agreed)
    usable = frame.usable & ~shape.collinear
    valid = usable & found.converged & found.cost.isfinite()
    valid = valid & resolved(frame, inputs.eps) & enough_points(problem, shape)
    if agreed is not None:
        valid = valid & agreed.enough
    translation = frame.translation(found.R, found.t)
    keep = (usable & translation.isfinite().all(-1))[:, None]
    eye = torch.eye(3, dtype=found.R.dtype, device=found.R.device)
    R, translation = torch.where(keep[..., None], found.R, eye), torch.where(keep, translation, eye[2])
    found = replace(found, cost=torch.where(keep[:, 0], found.cost, torch.inf))
    pose = torch.cat([so3_log(R), translation], -1)
    return found, Solution(problem, frame, R, found.t, pose, valid, found.hessian)


def _search(
    problem: Problem, frame: Frame, shape: Shape, init: Init | Tensor, inputs: Inputs, agreed: _Agreed | None
) -> Estimate:
    starts: list[tuple[Tensor, Tensor]] = []
    if agreed is not None:
        starts.append(_from_pose(frame, agreed.R, agreed.t))
    if isinstance(init, Tensor):
        pose = _start(init, inputs)
        R = so3_exp(torch.where(frame.usable[:, None], pose[:, :3], 0.0))
        starts.append(_from_pose(frame, R, pose[:, 3:]))
    if starts:
        return minimise(problem, *starts[0]) if len(starts) == 1 else best_of(problem, starts)
    if init == "weak_perspective":
        return solve_weak_perspective(problem, shape)
    if init == "sqpnp":
        return solve_algebraic(problem)
    if init == "epnp":
        return best_of(problem, [control_point_poses(problem)])
    return solve_auto(problem, shape)


def _from_pose(frame: Frame, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """A start of the normalised problem from a pose in the caller's units."""
    eye = torch.eye(3, dtype=t.dtype, device=t.device)
    usable = frame.usable[:, None]
    t = (t + (R @ frame.centre[..., None]).squeeze(-1)) / frame.radius
    return torch.where(usable[..., None], R, eye), torch.where(usable, t, 4 * eye[2])


def _start(init: Tensor, inputs: Inputs) -> Tensor:
    """The caller's start poses, `(B, 6)`."""
    try:
        return init.detach().to(inputs.x).expand(*inputs.batch, 6).reshape(-1, 6)
    except RuntimeError:
        wanted = (*inputs.batch, 6)
        raise ValueError(f"init must have a shape that expands to {wanted}, got {tuple(init.shape)}") from None


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
    if backward != "none" and not plain():
        return _transformed(inputs, solution, robust, backward, constraint)
    if backward == "none" or not (torch.is_grad_enabled() and any(value.requires_grad for value in tracked)):
        return solution.pose, solution.R
    if backward == "unrolled":
        return _unroll(inputs, solution, robust)
    exact = backward == "exact"
    rule = partial(published_rule, fixed, exact) if constraint == "bpnp" else partial(reprojection_rule, exact)
    return ImplicitPose.apply(*tracked, solution, rule)


def _transformed(
    inputs: Inputs, solution: Solution, robust: Huber | SampleConsensus | None, backward: Backward, constraint: str
) -> tuple[Tensor, Tensor]:
    """The pose under a transform of `torch.func` or in a traced graph, by Newton steps that either can follow."""
    if constraint == "bpnp" or backward == "gauss_newton":
        raise ValueError(
            'torch.func and torch.export take backward "exact", "unrolled" or "none" and constraint="reprojection"'
        )
    return _unroll(inputs, solution, robust)


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
        pose=pose.to(dtype).reshape(*batch, 6),
        R=R.to(dtype).reshape(*batch, 3, 3),
        cost=solution.frame.pixels2(found.cost).to(dtype).reshape(batch),
        iterations=found.iterations.reshape(batch),
        valid=solution.valid.reshape(batch),
        solution=solution,
    )
