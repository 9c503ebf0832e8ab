"""EPnP (Lepetit, Moreno-Noguer and Fua 2009) with derivatives that do not blow up.

Points are weighted sums of control points: the centroid, and the columns of the square root of the points' scatter
added to it, so that they have the object's size and shape; four in space, three in a plane. (The principal axes of the
paper serve as well, but jump where two of them are equally long.) The control points in the camera frame lie in the
span of the eigenvectors `v_1 ... v_k` of `M^T M` with the least eigenvalues; their coefficients `beta` keep the
control points' distances,

    min_beta sum_ab (|sum_k beta_k (v_k^a - v_k^b)|^2 - d_ab^2)^2,

started from every kernel size 1..4, minimised by damped Gauss-Newton steps, and chosen by reprojection error. A rigid
alignment of the points then gives the pose.

Derivatives: eigenvectors, coefficients and alignment are computed without a graph; then one Newton step of each, which
changes no value, is recorded. The chain is the exact derivative of the composed map. Since `beta` spans the whole
kernel, only the kernel matters and not its basis, so equal eigenvalues inside it do no harm.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from diffpnp_pose.devices import plain, readable
from diffpnp_pose.geometry.matrices import axial
from diffpnp_pose.pnp.linearise import Problem, cost_of
from diffpnp_pose.pnp.refine import rotated
from diffpnp_pose.pnp.starts.orthographic import normal_of, rays_of, shape_of

_BETA_STEPS = 25
_DAMPING = 1e-3  # of the first step
_SHORT = 1e-7  # relative step from which the recorded Newton step ends at rounding
# products beta_i beta_j solved for linearly in each start, by kernel size
_SPACE_STARTS = (
    [(0, 0)],
    [(0, 0), (0, 1), (1, 1)],
    [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)],
    [(0, j) for j in range(4)],
)
_PLANE_STARTS = ([(0, 0)], [(0, 0), (0, 1), (1, 1)], [(0, j) for j in range(3)])


def control_point_poses(problem: Problem) -> tuple[Tensor, Tensor]:
    """EPnP poses of a batch of normalised problems.

    Args:
        problem: the problems; differentiable with respect to its tensors.

    Returns:
        Rotations `(B, 3, 3)` and translations `(B, 3)`.
    """
    flat = shape_of(problem.z.detach(), problem.c.detach()).flat
    R, t = _poses(problem, 4)
    if readable(flat) and not flat.any():
        return R, t
    plane_R, plane_t = _poses(problem, 3)
    return torch.where(flat[:, None, None], plane_R, R), torch.where(flat[:, None], plane_t, t)


def _recorded(value: Tensor) -> bool:
    """Whether a derivative of `value` may be asked for, so that steps which change no value have to be recorded."""
    return not plain() or value.requires_grad or unpack_dual(value).tangent is not None


def _poses(problem: Problem, size: int) -> tuple[Tensor, Tensor]:
    """Poses with `size` control points: four, or three for points in a plane."""
    alpha, control = _control_points(problem, size - 1)
    kernel = _kernel(problem, alpha)  # (B, k, size, 3)
    pairs = list(combinations(range(size), 2))
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    edges = kernel[:, :, first] - kernel[:, :, second]
    Q = torch.einsum("bkpi,blpi->bpkl", edges, edges)
    d2 = (control[:, first] - control[:, second]).square().sum(-1)
    starts = _beta_starts(Q.detach(), d2.detach(), _SPACE_STARTS if size == 4 else _PLANE_STARTS)
    batch = Q.shape[0]
    rows = torch.arange(batch, device=Q.device)
    every = rows.repeat(len(starts))  # all starts of all items side by side: fewer and larger operations
    beta = _betas(Q[every], d2[every], torch.cat(starts))
    R, t = _finish(problem.select(every), alpha[every], kernel[every], beta)
    cost = cost_of(problem.select(every), R.detach(), t.detach()).nan_to_num(nan=torch.inf)
    best = cost.view(len(starts), batch).argmin(0) * batch + rows
    return R[best], t[best]


def _control_points(problem: Problem, dimensions: int) -> tuple[Tensor, Tensor]:
    """Coordinates `(B, size, n)` of the points in control points, and the control points' offsets `(B, size, d)`.

    Offsets from the centroid are expressed in space, or in the basis of the points' plane; only distances matter.
    """
    c = problem.c[:, None] / problem.c.sum(-1)[:, None, None]
    z = problem.z - (c * problem.z).sum(-1, keepdim=True)
    if dimensions == 2:
        z = _plane_basis(normal_of(shape_of(z, c[:, 0]))) @ z
    root = _square_root((z * c) @ z.mT)
    alpha = torch.linalg.solve_ex(root, z)[0]
    alpha = torch.cat([1 - alpha.sum(1, keepdim=True), alpha], 1)
    return alpha, torch.nn.functional.pad(root, (0, 0, 1, 0))


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


def _kernel(problem: Problem, alpha: Tensor) -> Tensor:
    """Eigenvectors of least eigenvalue of `M^T M`, as many as control points, `(B, k, size, 3)`."""
    x, y = rays_of(problem).unbind(1)
    size = alpha.shape[1]
    zero, root = torch.zeros_like(alpha), problem.c.clamp_min(1e-300).sqrt()[:, None]
    a = alpha * root
    rows = torch.cat(
        [torch.stack([a, zero, -a * x[:, None]], 2), torch.stack([zero, a, -a * y[:, None]], 2)], -1
    ).flatten(1, 2)  # (B, 3 size, 2 n)
    A = rows @ rows.mT
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(A)
    V, W = vectors[..., :size], vectors[..., size:]
    if not _recorded(A):
        return V.mT.unflatten(-1, (size, 3))
    gap = values[:, None, :size] - values[:, size:, None]
    # first-order motion of the kernel out of itself; zero in value, the derivative of the invariant subspace
    V = V + W @ ((W.mT @ (A - A.detach()) @ V) / gap.clamp_max(-1e-30))
    return V.mT.unflatten(-1, (size, 3))


def _beta_starts(Q: Tensor, d2: Tensor, starts: tuple[list[tuple[int, int]], ...]) -> list[Tensor]:
    """Coefficients `(B, k)` from the linearised distance equations, one guess per kernel size."""
    betas = []
    for products in starts:
        L = torch.stack([Q[:, :, i, j] * (1 if i == j else 2) for i, j in products], -1)
        normal = L.mT @ L
        ridge = 1e-12 * normal.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] + 1e-30
        eye = torch.eye(len(products), dtype=Q.dtype, device=Q.device)
        solved = torch.linalg.solve_ex(normal + ridge * eye, (L.mT @ d2[..., None]).squeeze(-1))[0]
        beta = Q.new_zeros(Q.shape[0], Q.shape[-1])
        beta[:, 0] = solved[:, 0].abs().clamp_min(1e-12).sqrt()
        for (i, j), value in zip(products, solved.unbind(-1), strict=True):
            if i == 0 and j > 0:
                beta[:, j] = value / beta[:, 0] * solved[:, 0].sign()
        betas.append(beta)
    return betas


def _betas(Q: Tensor, d2: Tensor, beta: Tensor) -> Tensor:
    """Damped Gauss-Newton on the distance equations, then one recorded Newton step.

    An item whose step is short is frozen; on a CPU the loop ends once all are, which changes no result.
    """
    fixed_Q, fixed_d2 = Q.detach(), d2.detach()
    beta = _descend(fixed_Q, fixed_d2, beta)
    _, gradient, _, hessian = _distance_model(Q, d2, beta)
    return beta - torch.linalg.solve_ex(hessian.detach(), gradient)[0]


def _descend(Q: Tensor, d2: Tensor, beta: Tensor) -> Tensor:
    damping = torch.full_like(beta[:, :1], _DAMPING)
    active = torch.ones_like(beta[:, 0], dtype=torch.bool)
    value, gradient, normal, _ = _distance_model(Q, d2, beta)
    for _ in range(_BETA_STEPS):
        raised = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping + 1e-30)
        step = torch.linalg.solve_ex(raised, gradient)[0]
        trial = _distance_model(Q, d2, beta - step)
        accept = active & (trial[0] <= value)
        wide = accept[:, None]
        short = step.abs().amax(-1) <= _SHORT * beta.abs().amax(-1)
        beta, value = torch.where(wide, beta - step, beta), torch.where(accept, trial[0], value)
        gradient, normal = torch.where(wide, trial[1], gradient), torch.where(wide[..., None], trial[2], normal)
        damping = torch.where(wide, damping * 0.1, damping * 10)
        active = active & ~short
        if readable(active) and not active.any():
            break
    return beta


def _distance_model(Q: Tensor, d2: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, gradient, Gauss-Newton matrix and Hessian of `sum_p (beta^T Q_p beta - d2_p)^2 / 4`."""
    Qb = (Q @ beta[:, None, :, None]).squeeze(-1)  # (B, p, k)
    residual = (Qb * beta[:, None]).sum(-1) - d2
    gauss_newton = 2 * Qb.mT @ Qb
    hessian = gauss_newton + (residual[..., None, None] * Q).sum(1)
    return residual.square().sum(-1) / 4, (residual[..., None] * Qb).sum(1), gauss_newton, hessian


def _finish(problem: Problem, alpha: Tensor, kernel: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Pose that aligns the object with the points that these coefficients place in the camera frame."""
    c = problem.c[:, None] / problem.c.sum(-1)[:, None, None]
    control = torch.einsum("bk,bksi->bsi", beta, kernel)
    points = control.mT @ alpha  # (B, 3, n)
    forward = (c[:, 0] * points[:, 2]).sum(-1)
    points = points * torch.where(forward < 0, -1.0, 1.0)[:, None, None]
    mean, centre = (c * points).sum(-1, keepdim=True), (c * problem.z).sum(-1, keepdim=True)
    R = _alignment((c * (points - mean)) @ (problem.z - centre).mT)
    return R, (mean - R @ centre).squeeze(-1)


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
