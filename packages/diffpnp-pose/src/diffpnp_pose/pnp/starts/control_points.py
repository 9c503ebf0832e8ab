"""EPnP (Lepetit, Moreno-Noguer and Fua 2009) on small sums, with derivatives that do not blow up.

Points are weighted sums of control points: the centroid, and the columns of the square root of the points' scatter
added to it, so that they have the object's size and shape; four in space, three in a plane. (The principal axes of the
paper serve as well, but jump where two of them are equally long.) With the coordinates `a_i` of the points in control
points, rows `X, Y, Z` of the control points in the camera frame and rays `(x_i, y_i)`, the algebraic error is

    sum_i c_i ((X - x_i Z) . a_i)^2 + ((Y - y_i Z) . a_i)^2,

so that the depths Z determine X and Y by one small linear system. (The paper takes the eigenvectors of least eigenvalue
of this form in all twelve unknowns, which is nearly the same space; this one needs no eigenvectors of large matrices,
and its derivative none at all.) What is left of the form is one in Z, `Z^T S Z`; its eigenvectors, least first, are the
basis in which the depths have coefficients `beta`. They keep the control points' distances,

    min_beta sum_ab (|sum_k beta_k (v_k^a - v_k^b)|^2 - d_ab^2)^2,

started from every kernel size 1..4. After a few damped Gauss-Newton steps the start whose rigid control points have the
least algebraic error, by their depth, goes on to the minimum. A rigid alignment then gives the pose. The points are
gone through once, for the sums.

Derivatives: coefficients and alignment are computed without a graph; then one Newton step of each, which changes no
value, is recorded. The chain is the exact derivative of the composed map. Since `beta` spans all depths, the basis does
not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from diffpnp_pose.devices import kept, plain, readable
from diffpnp_pose.geometry.matrices import axial
from diffpnp_pose.pnp.linearise import Problem
from diffpnp_pose.pnp.refine import rotated
from diffpnp_pose.pnp.starts.coefficients import approach, beta_starts, descend, distance_model
from diffpnp_pose.pnp.starts.orthographic import normal_of, rays_of, shape_of

_RIDGE = 1e-12  # relative to the coordinates' scatter, under rounding
_TIE = 1e-9  # four points determine no depths; the starts then begin with equal ones


def control_point_poses(problem: Problem) -> tuple[Tensor, Tensor]:
    """EPnP poses of a batch of normalised problems.

    Args:
        problem: the problems; differentiable with respect to its tensors.

    Returns:
        Rotations `(B, 3, 3)` and translations `(B, 3)`.
    """
    flat = shape_of(problem.z.detach(), problem.c.detach()).flat
    if not readable(flat) or flat.any():
        (R, t), (plane_R, plane_t) = _poses(problem, 4), _poses(problem, 3)
        return torch.where(flat[:, None, None], plane_R, R), torch.where(flat[:, None], plane_t, t)
    return _poses(problem, 4)


def _recorded(value: Tensor) -> bool:
    """Whether a derivative of `value` may be asked for, so that steps which change no value have to be recorded."""
    return not plain() or value.requires_grad or unpack_dual(value).tangent is not None


@dataclass
class _Body:
    """The object in terms of `size = d + 1` control points.

    Attributes:
        alpha: coordinates of the points in control points, `(B, size, n)`.
        c: weights of the points, summing to one, `(B, 1, n)`.
        root: offsets of the control points but the first from it, in columns, `(B, d, d)`.
        axes: directions of these coordinates in the object's frame, `(B, d, 3)`, or None for the frame's own.
        moments: `sum c a z^T` of the coordinates but the first and centred points, `(B, d, 3)`.
        centre: centroid, `(B, 3)`.
    """

    alpha: Tensor
    c: Tensor
    root: Tensor
    axes: Tensor | None
    moments: Tensor
    centre: Tensor


@dataclass
class _Depths:
    """What the depths of the control points lead to.

    Attributes:
        gram: `sum c a a^T`, `(B, size, size)`.
        left: what is left of the algebraic error as a form in the depths, `(B, size, size)`.
        across: X and Y of the control points from their depths, `(B, 2 size, size)`.
        kernel: rows X, Y and Z of the control points from coefficients, `(B, 3 size, size)`.
    """

    gram: Tensor
    left: Tensor
    across: Tensor
    kernel: Tensor


def _poses(problem: Problem, size: int) -> tuple[Tensor, Tensor]:
    """Poses with `size` control points: four, or three for points in a plane."""
    body = _body(problem, size - 1)
    depths = _depths(problem, body)
    ends = _ends(size, body.root.dtype, body.root.device)
    edges = torch.matmul(ends, depths.kernel.view(-1, 3, size, size))  # (B, 3, pairs, size)
    Q = (edges[..., None] * edges[..., None, :]).sum(1).flatten(1, 2)  # (B, pairs size, size)
    offsets = torch.nn.functional.pad(body.root.mT, (0, 0, 1, 0))
    d2 = torch.matmul(ends, offsets).square().sum(-1)
    with torch.no_grad():
        beta = _search(body, depths, Q.detach(), d2.detach())
    model = distance_model(Q, d2, beta)
    beta = beta - torch.linalg.solve_ex(model.hessian(Q, exact=True).detach(), model.gradient)[0]
    control = torch.bmm(depths.kernel, beta[..., None]).view(-1, 3, size)
    control = control * torch.where(control[:, 2, 0] < 0, -1.0, 1.0)[:, None, None]
    R = _alignment(torch.bmm(control[..., 1:] - control[..., :1], body.moments))
    return R, control[..., 0] - (R @ body.centre[..., None]).squeeze(-1)


def _body(problem: Problem, dimensions: int) -> _Body:
    c = problem.c[:, None] / problem.c.sum(-1)[:, None, None]
    centre = (c * problem.z).sum(-1, keepdim=True)
    z = problem.z - centre
    axes = _plane_basis(normal_of(shape_of(z, c[:, 0]))) if dimensions == 2 else None
    flat = z if axes is None else torch.bmm(axes, z)
    root = _square_root(torch.bmm(flat * c, flat.mT))
    a = torch.linalg.solve_ex(root, flat)[0]
    alpha = torch.cat([1 - a.sum(1, keepdim=True), a], 1)
    return _Body(alpha, c, root, axes, torch.bmm(a * c, z.mT), centre[..., 0])


def _depths(problem: Problem, body: _Body) -> _Depths:
    rays, alpha = rays_of(problem), body.alpha
    size = alpha.shape[1]
    factors = torch.cat([torch.ones_like(body.c), rays, (rays * rays).sum(1, keepdim=True)], 1) * body.c
    sums = torch.bmm((factors[:, :, None] * alpha[:, None]).flatten(1, 2), alpha.mT)
    gram, x, y, both = sums.split(size, 1)
    # the little that is added keeps points in a plane, which have a result of their own, from dividing by zero
    regular = gram + _RIDGE * torch.eye(size, dtype=gram.dtype, device=gram.device)
    across = torch.linalg.solve_ex(regular, torch.cat([x, y], 2))[0]
    across = torch.cat(across.split(size, 2), 1)
    left = both - torch.bmm(torch.cat([x, y], 2), across)
    with torch.no_grad():
        tie = _TIE * (torch.eye(size, dtype=left.dtype, device=left.device) - 1 / size)
        basis = torch.linalg.eigh(left.detach() + tie)[1]
    return _Depths(gram, left, across, torch.cat([torch.bmm(across, basis), basis], 1))


def _plane_basis(normal: Tensor) -> Tensor:
    """Two orthonormal rows `(B, 2, 3)` across unit normals: the coordinate axis least along them, then the other."""
    tie_break = normal.new_tensor([0.0, 0.01, 0.02])  # normals along an axis are common, and rounding must not choose
    axis = torch.nn.functional.one_hot((normal.detach().abs() + tie_break).argmin(-1), 3).to(normal)
    first = axis - normal * (axis * normal).sum(-1, keepdim=True)
    first = first / first.norm(dim=-1, keepdim=True)
    return torch.stack([first, torch.linalg.cross(normal, first)], 1)


def _square_root(S: Tensor) -> Tensor:
    """Symmetric square roots; the derivative solves `X dX + dX X = dS` and has no trouble with equal eigenvalues."""
    with torch.no_grad():
        values, V = torch.linalg.eigh(S)
        roots = values.clamp_min(1e-12).sqrt()
    if not _recorded(S):
        return (V * roots[:, None]) @ V.mT
    change = (V.mT @ (S - S.detach()) @ V) / (roots[:, :, None] + roots[:, None])
    return V @ (torch.diag_embed(roots) + change) @ V.mT


@kept
def _ends(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One control point minus another, for every pair, `(pairs, size)`."""
    eye = torch.eye(size, dtype=dtype)
    return torch.stack([eye[a] - eye[b] for a, b in combinations(range(size), 2)]).to(device)


def _search(body: _Body, depths: _Depths, Q: Tensor, d2: Tensor) -> Tensor:
    """Coefficients `(B, size)` next to the best minimum that the starts lead to."""
    batch, size = Q.shape[0], Q.shape[2]
    starts = beta_starts(Q, d2)
    every = torch.arange(batch, device=Q.device).repeat_interleave(starts.shape[1])
    beta = approach(Q[every], d2[every], starts.flatten(0, 1))
    beta = beta.view(starts.shape)
    best = _rigid_error(body, depths, beta).nan_to_num(nan=torch.inf).argmin(1)
    beta = beta.gather(1, best[:, None, None].expand(-1, 1, size)).squeeze(1)
    return descend(Q, d2, beta)


def _rigid_error(body: _Body, depths: _Depths, beta: Tensor) -> Tensor:
    """Algebraic errors `(B, S)`, over squared depth, of the object moved next to the control points of `beta`."""
    batch, starts, size = beta.shape
    control = torch.bmm(beta, depths.kernel.mT).view(batch, starts, 3, size)
    control = control * torch.where(control[:, :, 2, :1] < 0, -1.0, 1.0)[..., None]
    offsets = torch.linalg.solve_ex(body.root[:, None], control[..., 1:] - control[..., :1], left=False)[0]
    first, second = offsets[..., 0], offsets[..., 1]  # where the map to the camera takes two of the object's axes
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - first * (first * second).sum(-1, keepdim=True)
    second = second / second.norm(dim=-1, keepdim=True)
    turned = torch.stack([first, second, torch.linalg.cross(first, second)], -1)[..., : size - 1]
    rigid = torch.matmul(turned, body.root[:, None])
    rigid = control[..., :1] + torch.nn.functional.pad(rigid, (1, 0))
    depth = rigid[:, :, 2]  # (B, S, size)
    off = rigid[:, :, :2] - torch.bmm(depth, depths.across.mT).view(batch, starts, 2, size)
    error = (torch.bmm(off.flatten(1, 2), depths.gram).view_as(off) * off).sum((2, 3))
    return (error + (torch.bmm(depth, depths.left) * depth).sum(-1)) / depth[..., 0].square()


def _alignment(H: Tensor) -> Tensor:
    """Rotations that maximise `trace(R^T H)`; derivative by one recorded Newton step on the rotation group."""
    with torch.no_grad():
        U, _, Vh = torch.linalg.svd(H.detach())
        sign = torch.linalg.det(U @ Vh)
        R = torch.cat([U[:, :, :2], U[:, :, 2:] * sign[:, None, None]], 2) @ Vh
    if not _recorded(H):
        return R
    N = H @ R.mT
    fixed = (N.detach() + N.detach().mT) / 2
    eye = torch.eye(3, dtype=H.dtype, device=H.device)
    curvature = fixed.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * eye - fixed
    return rotated(R, torch.linalg.solve_ex(curvature, axial(N))[0])
