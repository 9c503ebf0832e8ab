"""What `solve_pnp` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from diffpnp_pose.geometry.jacobians import left_jacobian_inverse
from diffpnp_pose.geometry.matrices import skew
from diffpnp_pose.geometry.rotations import so3_log
from diffpnp_pose.pnp.alternatives import other_minimum
from diffpnp_pose.pnp.gradients.implicit import Solution


@dataclass(frozen=True, eq=False)
class Alternative:
    """The second minimum of a batch of problems.

    Attributes:
        pose: rotation vector and translation, `(..., 6)`; where `valid` is False the pose of the result itself.
        R: rotation matrices, `(..., 3, 3)`.
        cost: half the weighted sum of squared residuals, squared pixels, `(...)`; infinite where there is none.
        ratio: cost of the result over this cost, `(...)`: 0 where no second minimum was found, near 1 where the points
            cannot tell the two apart, over 1 where the result is the worse one.
        valid: whether a second minimum was found, `(...)`.
    """

    pose: Tensor
    R: Tensor
    cost: Tensor
    ratio: Tensor
    valid: Tensor


@dataclass(frozen=True, eq=False)
class PnPResult:
    """Poses of a batch of problems; all leading dimensions are the batch's.

    Attributes:
        pose: rotation vector in radians and translation in the unit of the object points, `(..., 6)`; differentiable.
        R: rotation matrices, `(..., 3, 3)`; differentiable, at every angle.
        cost: half the weighted sum of squared residuals (or of Huber's function) in squared pixels, `(...)`; not
            differentiable.
        iterations: steps tried, `(...)`.
        valid: whether a minimum was reached that the points determine, all of them in front of the camera, `(...)`. It
            does not say that the pose is right: wrong points have minima too, and there may be several. With
            `SampleConsensus` enough points agree besides. Where it is False the gradient is zero.
        solution: the solved problem in internal units.
    """

    pose: Tensor
    R: Tensor
    cost: Tensor
    iterations: Tensor
    valid: Tensor
    solution: Solution = field(repr=False)

    @property
    def t(self) -> Tensor:
        """Translations in the unit of the object points, `(..., 3)`; differentiable."""
        return self.pose[..., 3:]

    @property
    def inliers(self) -> Tensor:
        """The points that the pose was found from, bool, `(..., n)`.

        Present, of positive weight, and with `SampleConsensus` not left out as outliers; none of an item whose inputs
        were unusable.
        """
        used = (self.solution.problem.c > 0) & self.solution.frame.usable[:, None]
        return used.reshape(*self.cost.shape, -1)

    @property
    def inlier_count(self) -> Tensor:
        """Number of `inliers`, `(...)`."""
        return self.inliers.sum(-1)

    @cached_property
    def alternatives(self) -> Alternative:
        """The second-best minimum and how well it fits beside the first; not differentiable, computed on first use.

        Flat objects and four or five points often have two minima: a small one of noise decides which is lower. Solid
        objects have others too, mostly far worse ones. They are looked for from the starts of `init="auto"`.
        """
        with torch.no_grad(), torch.autocast(self.pose.device.type, enabled=False):
            return _alternative(self)

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of `pose` for image noise of variance `1/weight` squared pixels, `(..., 6, 6)`.

        The inverse of the cost's exact Hessian at the minimum; infinite where `valid` is False. Multiply it by the
        noise variance if the weights are not inverse variances. Not differentiable; computed on first use.
        """
        with torch.no_grad(), torch.autocast(self.pose.device.type, enabled=False):
            return _covariance(self.solution).to(self.pose.dtype).reshape(*self.pose.shape, 6)


def _alternative(result: PnPResult) -> Alternative:
    solution, frame, dtype, batch = result.solution, result.solution.frame, result.pose.dtype, result.cost.shape
    second = other_minimum(solution.problem, solution.R, solution.t)
    valid = solution.valid & second.cost.isfinite()
    R = torch.where(valid[:, None, None], second.R, solution.R)
    pose = torch.cat([so3_log(R), frame.translation(R, second.t)], -1)
    pose = torch.where(valid[:, None], pose, solution.pose)
    cost = torch.where(valid, frame.pixels2(second.cost), torch.inf)
    return Alternative(
        pose=pose.to(dtype).reshape(*batch, 6),
        R=R.to(dtype).reshape(*batch, 3, 3),
        cost=cost.to(dtype).reshape(batch),
        ratio=torch.where(valid, second.ratio, 0.0).to(dtype).reshape(batch),
        valid=valid.reshape(batch),
    )


def _covariance(solution: Solution) -> Tensor:
    """`L H^-1 L^T` with `L` the derivative of the pose vector by the normalised problem's tangent coordinates."""
    frame, inverse = solution.frame, left_jacobian_inverse(solution.pose[:, :3])
    lever = skew((solution.R @ frame.centre[..., None]).squeeze(-1))
    radius = torch.diag_embed(frame.radius.expand(-1, 3))
    L = torch.cat([torch.nn.functional.pad(inverse, (0, 3)), torch.cat([lever, radius], 2)], 1)
    precision = frame.total * frame.focal**2
    covariance = L @ torch.linalg.inv_ex(solution.hessian)[0] @ L.mT / precision[..., None]
    covariance = (covariance + covariance.mT) / 2
    return torch.where(solution.valid[:, None, None], covariance, torch.inf)
