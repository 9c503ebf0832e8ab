"""The gradient of Chen et al. (2020), "BPnP", as their published code computes it.

Their constraint is `f_j = sum_i c_i <p_z (x_i - u_i), du_i/dy_j>`: every residual is multiplied by the point's depth,
so the solved pose is no root of it and the result is not the gradient of the minimiser (off by some per cent, more at
close range). `y` is the rotation vector and translation. The faster variant holds the factor `du/dy` fixed. This
module is for comparisons; the default of `solve_pnp` is the exact gradient. It is derived in the caller's units and
the chart of that code, apart from `implicit` on purpose: neither can hide an error of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import cross

from diffpnp_pose.geometry.jacobians import left_jacobian
from diffpnp_pose.geometry.matrices import skew
from diffpnp_pose.geometry.rotations import rotation_coefficients
from diffpnp_pose.pnp.gradients.implicit import Solution, axial_of
from diffpnp_pose.pnp.problem import Inputs


def jacobian_transpose_derivative(w: Tensor, a: Tensor) -> Tensor:
    """Derivative with respect to `w` of `left_jacobian(w)^T a` at constant `a`.

    Args:
        w: rotation vectors, `(B, 3)`.
        a: vectors, `(B, 3)`.

    Returns:
        Matrices, `(B, 3, 3)`.
    """
    _, b, c, e, f = (value[:, None, None] for value in rotation_coefficients((w * w).sum(-1), 5))
    wa = cross(w, a)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    row, column = w[:, None], w[:, :, None]
    twice = (w * a).sum(-1)[:, None, None] * eye + column * a[:, None] - 2 * a[:, :, None] * row
    return b * skew(a) - (2 * e - c) * wa[:, :, None] * row + c * twice + (3 * f - e) * cross(w, wa)[:, :, None] * row


@dataclass
class _Terms:
    """Per-point quantities, `u` the image point and `p` the point in the camera frame.

    Attributes:
        q: rotated object points, `(B, 3, n)`.
        h: `p / p_z`, `(B, 3, n)`.
        depth: `p_z`, `(B, n)`.
        r: `x - u`, `(B, 2, n)`.
        P: `du/dp`, `(B, n, 2, 3)`.
        gp: `P^T r`, `(B, 3, n)`.
        T: `dp/d(dw, dt)`, `(B, n, 3, 6)`.
    """

    q: Tensor
    h: Tensor
    depth: Tensor
    r: Tensor
    P: Tensor
    gp: Tensor
    T: Tensor


def _terms(inputs: Inputs, solution: Solution) -> _Terms:
    q = solution.R @ inputs.z.mT
    p = q + solution.pose[:, 3:, None]
    depth = p[:, 2]
    h = p / depth[:, None]
    K2 = inputs.K[:, :2]
    r = inputs.x.mT - K2 @ h
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    ray_free = eye - h.mT[..., None] * eye[2]  # (B, n, 3, 3): I - h e3^T
    P = K2[:, None] @ ray_free / depth[..., None, None]
    T = torch.cat([-skew(q.mT), eye.expand(*q.mT.shape[:2], 3, 3)], -1)
    return _Terms(q, h, depth, r, P, (P.mT @ r.mT[..., None]).squeeze(-1).mT, T)


def published_rule(
    inputs: Inputs, exact: bool, solution: Solution, pose_bar: Tensor, R_bar: Tensor, image_only: bool = False
) -> tuple[Tensor, ...]:
    """Gradients of the published constraint.

    Args:
        inputs: the caller's inputs, detached.
        exact: differentiate every factor; False for the published faster variant.
        solution: the solved batch.
        pose_bar: gradient of the pose, `(B, 6)`.
        R_bar: gradient of the rotations, `(B, 3, 3)`.
        image_only: give the first of the gradients alone.

    Returns:
        Gradients of image points `(B, n, 2)`, object points `(B, n, 3)`, K `(B, 3, 3)` and weights `(B, n)`.
    """
    terms, J = _terms(inputs, solution), left_jacobian(solution.pose[:, :3])
    G = _point_derivative(terms, exact)
    jacobian = (inputs.c[..., None, None] * (terms.T.mT @ G @ terms.T)).sum(1)
    if exact:
        jacobian = jacobian + torch.nn.functional.pad(_rotation_terms(inputs.c, terms), (0, 3, 0, 3))
    chart = _chart(J)
    jacobian = chart.mT @ jacobian @ chart
    if exact:
        constraint = (inputs.c[:, None] * cross(terms.q, terms.gp * terms.depth[:, None], dim=1)).sum(-1)
        second = jacobian_transpose_derivative(solution.pose[:, :3], constraint)
        jacobian = jacobian + torch.nn.functional.pad(second, (0, 3, 0, 3))
    rotation = pose_bar[:, :3] + (J.mT @ axial_of(R_bar, solution.R)[..., None]).squeeze(-1)
    y_bar = torch.cat([rotation, pose_bar[:, 3:]], -1)
    v = (chart @ torch.linalg.solve_ex(jacobian.mT, y_bar)[0][..., None]).squeeze(-1)
    gradients = _spread(inputs, solution, terms, G, v, exact)
    return gradients[:1] if image_only else gradients


def _chart(J: Tensor) -> Tensor:
    """Block diagonal of `J (B, 3, 3)` and the identity, `(B, 6, 6)`."""
    eye = torch.eye(3, dtype=J.dtype, device=J.device).expand_as(J)
    return torch.nn.functional.pad(J, (0, 3, 0, 3)) + torch.nn.functional.pad(eye, (3, 0, 3, 0))


def _point_derivative(terms: _Terms, exact: bool) -> Tensor:
    """Derivative `(B, n, 3, 3)` of `p_z P^T r` with respect to the point p; P is held fixed unless exact."""
    square = terms.P.mT @ terms.P * terms.depth[..., None, None]
    e3 = torch.eye(3, dtype=square.dtype, device=square.device)[2]
    gp = terms.gp.mT
    return -square - e3[:, None] * gp[..., None, :] if exact else -square + gp[..., None] * e3


def _rotation_terms(c: Tensor, terms: _Terms) -> Tensor:
    """Derivative `(B, 3, 3)` of the lever `q` in `q x g` under a rotation: `sum c (q g^T - (q . g) I)`."""
    rotation = terms.q @ (terms.gp * (terms.depth * c)[:, None]).mT
    return rotation - torch.diag_embed(rotation.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True).expand(-1, 3))


def _spread(inputs: Inputs, solution: Solution, terms: _Terms, G: Tensor, v: Tensor, exact: bool) -> tuple[Tensor, ...]:
    """Gradients of the inputs from the solved multipliers `v (B, 6)`, in tangent coordinates."""
    c, g = inputs.c, terms.gp * terms.depth[:, None]
    motion = terms.T @ v[:, None, :, None]  # (B, n, 3, 1)
    flow = (terms.P @ motion).squeeze(-1) * (terms.depth * c)[..., None]  # c K sigma
    z_bar = (G.mT @ motion).squeeze(-1)
    K_bar = flow.mT @ terms.h.mT
    motion = motion.squeeze(-1)
    if exact:
        z_bar = z_bar + cross(g, v[:, :3, None], dim=1).mT
        sigma = motion - terms.h.mT * motion[..., 2:]
        K_bar = K_bar - (terms.r * c[:, None]) @ sigma
    z_bar = -(c[..., None] * z_bar) @ solution.R
    c_bar = -(motion * g.mT).sum(-1)
    return -flow, z_bar, torch.nn.functional.pad(K_bar, (0, 0, 0, 1)), c_bar
