"""The gradient of a minimiser, from the implicit function theorem, in closed form.

At the minimum `grad F(y; theta) = 0`, hence `dy = -H^-1 d(grad F)/dtheta dtheta`. With the incoming gradient `d` of
the pose in tangent coordinates, `v = H^-1 d` and `s_i = v_w x q_i + v_t` (the motion of point i), one 6x6 solve per
item gives, in the notation of `linearise`:

    image points    c D B s
    weights         -(g . s)
    object points   -c R^T (B^T D B s - (e3 (g . s) + g s_z)/p_z + g x v_w)
    K               -sum c (psi sigma^T + (D B s) h^T),  sigma = (s - h s_z)/p_z,  h = p/p_z

Chen et al. (2020) obtain the same quantities by six backward passes per item; their faster variant drops every term
with a residual that is not differentiated itself, which is the Gauss-Newton approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import cross

from diffpnp_pose.geometry.jacobians import left_jacobian_inverse_factor
from diffpnp_pose.geometry.matrices import axial
from diffpnp_pose.pnp.linearise import Problem, camera_points, huber, linearise
from diffpnp_pose.pnp.problem import Frame


@dataclass
class Solution:
    """A solved batch: what the backward pass needs.

    Attributes:
        problem: the normalised problems.
        frame: their frame.
        R: rotations, `(B, 3, 3)`.
        t: translations of the normalised problem, `(B, 3)`.
        pose: rotation vectors and translations in the caller's units, `(B, 6)`.
        valid: items whose gradient is defined, `(B,)`.
        hessian: exact Hessian of the normalised cost in tangent coordinates, `(B, 6, 6)`.
    """

    problem: Problem
    frame: Frame
    R: Tensor
    t: Tensor
    pose: Tensor
    valid: Tensor
    hessian: Tensor


def axial_of(R_bar: Tensor, R: Tensor) -> Tensor:
    """Gradient `(B, 3)` of a small rotation before R, from the gradient `(B, 3, 3)` of R."""
    return axial(R_bar @ R.mT)


def tangent(solution: Solution, pose_bar: Tensor, R_bar: Tensor) -> Tensor:
    """Gradient `(B, 6)` with respect to `(dw, dt)` of the normalised problem, from those of pose and R.

    `exp(w + e) = exp(J e) exp(w)` gives `J^-T`; for R it is the axial vector of `R_bar R^T`; moving the pivot from the
    object's origin to its centroid adds a cross product.
    """
    w, w_bar, shift = solution.pose[:, :3], pose_bar[:, :3], pose_bar[:, 3:]
    across = cross(w, w_bar)
    w_bar = (
        w_bar + across / 2 + left_jacobian_inverse_factor(w)[:, None] * cross(w, across) + axial_of(R_bar, solution.R)
    )
    lever = torch.bmm(solution.R, solution.frame.centre[..., None]).squeeze(-1)
    return torch.cat([w_bar - cross(lever, shift), solution.frame.radius * shift], -1)


def pull_back(solution: Solution, d: Tensor, exact: bool, image_only: bool) -> tuple[Tensor, ...]:
    """Gradients of the minimiser of a normalised problem.

    Args:
        solution: the solved problems.
        d: gradient with respect to the pose in tangent coordinates, `(B, 6)`.
        exact: False for the Gauss-Newton approximation.
        image_only: stop after the first gradient.

    Returns:
        Gradients of image points `(B, 2, n)`, object points `(B, 3, n)`, affine block `(B, 2, 2)`, weights `(B, n)`.
    """
    problem, R, t = solution.problem, solution.R, solution.t
    hessian = solution.hessian if exact else linearise(problem, R, t, exact=False).hessian
    v = torch.linalg.solve_ex(hessian, d)[0]
    q, inverse, u, _ = camera_points(problem, R, t)
    r, c = u - problem.x, problem.c[:, None]
    _, weight = huber(r, problem.delta)
    motion = cross(v[:, :3, None], q, dim=1) + v[:, 3:, None]
    rays = (q[:, :2] + t[:, :2, None]) * inverse
    sigma = (motion[:, :2] - rays * motion[:, 2:]) * inverse
    bent = _second(torch.bmm(problem.affine, sigma), r, weight)
    if image_only:
        return (c * bent,)
    psi = r if weight is None else weight[:, None] * r
    bent_back, g = (_back(problem.affine.mT @ value, rays, inverse) for value in (bent, psi))
    along = (g * motion).sum(1)
    z_bar, affine_bar = bent_back, (c * bent) @ rays.mT
    if exact:
        depth = torch.cat([g[:, :2] * motion[:, 2:], (along + g[:, 2] * motion[:, 2])[:, None]], 1) * inverse
        z_bar = z_bar - depth + cross(g, v[:, :3, None], dim=1)
        affine_bar = affine_bar + (c * psi) @ sigma.mT
    return c * bent, -(R.mT @ (c * z_bar)), -affine_bar, -along


def _back(k: Tensor, rays: Tensor, inverse: Tensor) -> Tensor:
    """`B^T` applied: `(k, -rays . k)/p_z`, `(B, 3, n)`."""
    return torch.cat([k, -(rays * k).sum(1, keepdim=True)], 1) * inverse


def _second(flow: Tensor, r: Tensor, weight: Tensor | None) -> Tensor:
    """`D flow`: the second derivative of the loss, which for Huber's outliers vanishes along the residual."""
    if weight is None:
        return flow
    square = torch.where(weight < 1, (r * r).sum(1), 1.0)
    radial = torch.where(weight < 1, (r * flow).sum(1) / square, 0.0)
    return weight[:, None] * (flow - r * radial[:, None])


class ImplicitPose(torch.autograd.Function):
    """Identity on a solved pose, with the implicit gradient as its backward pass.

    No `setup_context`: with it, torch inspects the signature in every call, which takes longer than the whole forward.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Return pose `(B, 6)` and rotations `(B, 3, 3)`.

        Args:
            ctx: keeps the solution and the rule that differentiates it.
            inputs: x, z, K and c, which only mark what the gradient flows to, then the solution and the rule.
        """
        ctx.solution, ctx.rule = inputs[4:]
        return ctx.solution.pose.clone(), ctx.solution.R.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of the four inputs; zero for items that are not valid."""
        pose_bar, R_bar = grad_outputs
        solution: Solution = ctx.solution
        with torch.autocast(pose_bar.device.type, enabled=False):
            gradients = ctx.rule(solution, pose_bar, R_bar, not any(ctx.needs_input_grad[1:4]))
        valid = solution.valid
        kept = [torch.where(valid.view(-1, *[1] * (g.dim() - 1)), g, 0.0) for g in gradients]
        return *kept, *[None] * (6 - len(kept))


def _to_inputs(solution: Solution, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients in the caller's units and layout: `(B, n, 2)`, `(B, n, 3)`, `(B, 3, 3)`, `(B, n)`."""
    frame = solution.frame
    focal = frame.focal[..., None]
    x_bar = parts[0] / focal
    if len(parts) == 1:
        return (x_bar.mT,)
    z_bar, affine_bar, c_bar = parts[1:]
    K_bar = torch.cat([affine_bar / focal, -x_bar.sum(-1, keepdim=True)], 2)
    K_bar = torch.nn.functional.pad(K_bar, (0, 0, 0, 1))
    return x_bar.mT, z_bar.mT / frame.radius[..., None], K_bar, c_bar / frame.total


def reprojection_rule(
    exact: bool, solution: Solution, pose_bar: Tensor, R_bar: Tensor, image_only: bool
) -> tuple[Tensor, ...]:
    """Gradients of the minimiser.

    Args:
        exact: keep all terms; False leaves out the second derivatives of the projection (exact at zero residual).
        solution: the solved batch.
        pose_bar: gradient of the pose, `(B, 6)`.
        R_bar: gradient of the rotations, `(B, 3, 3)`.
        image_only: give the first of the gradients alone.

    Returns:
        Gradients of image points `(B, n, 2)`, object points `(B, n, 3)`, K `(B, 3, 3)` and weights `(B, n)`.
    """
    d = tangent(solution, pose_bar, R_bar)
    return _to_inputs(solution, pull_back(solution, d, exact, image_only))
