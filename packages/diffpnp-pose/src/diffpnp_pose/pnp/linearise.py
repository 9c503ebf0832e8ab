"""Cost, gradient and Hessian of the reprojection error of a batch of poses, in closed form.

With `q = R z`, `p = q + t`, `u = K p / p_z`, residual `r = u - x` and point weight `c`, the cost is
`F = sum_i c_i rho(|r_i|)`, with `rho(s) = s^2/2` or Huber's function. Poses move in the camera frame,
`p -> exp(dw) q + t + dt`, so that `dp = T (dw, dt)` with `T = [-[q]x, I]`. Writing `b_k = du_k/dp`:

    gradient = sum c T^T g,                            g = sum_k psi_k b_k,   psi = drho/dr
    Hessian  = sum c T^T (B^T D B - (e3 g^T + g e3^T)/p_z) T + rotation term,   D = dpsi/dr
    rotation term (upper left 3x3 block) = sum c ((g q^T + q g^T)/2 - (g . q) I)

The first product alone is the Gauss-Newton matrix. Without Huber's flattening `D = psi/r` is a number, and with the
rows `a_k` of the affine block and `s = u + r` the matrix between `T^T` and `T` has the short form

    (psi/r) / p_z^2 (a_0 a_0^T + a_1 a_1^T - sum_k s_k (a_k e3^T + e3 a_k^T) + (|u|^2 + 2 u . r) e3 e3^T)

(with `s = u` and `|u|^2` for Gauss-Newton), so that four weights a point make the Hessian, three more the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffpnp_pose.pnp.moments import assemble, metric_of, products

_NEAREST = 1e-6  # a point counts as in front of the camera from this depth on, in object radii


@dataclass
class Problem:
    """A batch of normalised PnP problems, points along the last dimension.

    Attributes:
        x: image points minus the principal point, over the focal length, `(B, 2, n)`.
        z: object points minus their centroid, over their radius, `(B, 3, n)`.
        affine: upper left block of K over the focal length, `(B, 2, 2)`.
        c: point weights, zero for absent points, which lie at the origin, summing to one, `(B, n)`.
        delta: Huber's threshold over the focal length, `(B, 1)`, or None for squared residuals.
    """

    x: Tensor
    z: Tensor
    affine: Tensor
    c: Tensor
    delta: Tensor | None = None

    @cached_property
    def metric(self) -> Tensor:
        """`metric_of` the affine blocks, which many linearisations share."""
        return metric_of(self.affine)

    def select(self, index: Tensor) -> Problem:
        """The problems at these positions of the batch (an index or a mask); positions may repeat."""
        delta = None if self.delta is None else self.delta[index]
        return Problem(self.x[index], self.z[index], self.affine[index], self.c[index], delta)


@dataclass
class Local:
    """Second-order model of the cost at a pose.

    Attributes:
        cost: costs, `(B,)`; infinite with a point behind the camera.
        system: Hessian, and the gradient as a seventh row, `(B, 7, 6)`: one tensor, since the solver copies it often.
    """

    cost: Tensor
    system: Tensor

    @property
    def hessian(self) -> Tensor:
        """Hessians, `(B, 6, 6)`."""
        return self.system[:, :6]

    @property
    def gradient(self) -> Tensor:
        """Gradients, `(B, 6)`."""
        return self.system[:, 6]


def huber(r: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Huber's function of the residual length and its slope over the length (the IRLS weight).

    Args:
        r: residuals, `(B, 2, n)`.
        delta: thresholds, `(B, 1)`, or None for half the squared length.

    Returns:
        The losses `(B, n)` and the weights `(B, n)`, None where all are one.
    """
    square = (r * r).sum(1)
    if delta is None:
        return square / 2, None
    length = square.clamp_min(1e-300 if r.dtype == torch.float64 else 1e-36).sqrt()
    inside = length <= delta
    return torch.where(inside, square / 2, delta * length - delta * delta / 2), torch.where(inside, 1.0, delta / length)


def camera_points(problem: Problem, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotated points `q (B, 3, n)`, inverse depths `(B, 1, n)`, image points `u (B, 2, n)`, in-front flag `(B,)`.

    Absent points lie at the centroid, which is in front of the camera if all others are.
    """
    q = torch.bmm(R, problem.z)  # bmm, here and below: half of the time of matmul goes into its bookkeeping
    p = q + t[:, :, None]
    depth = p[:, 2:]
    inverse = depth.reciprocal()
    u = torch.bmm(problem.affine, p[:, :2]) * inverse
    return q, inverse, u, depth.amin(-1)[:, 0] > _NEAREST


def cost_of(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """Costs `(B,)` of poses; infinite where a point lies behind the camera."""
    _, _, u, front = camera_points(problem, R, t)
    loss, _ = huber(u - problem.x, problem.delta)
    return torch.where(front, (problem.c * loss).sum(-1), torch.inf)


def linearise(problem: Problem, R: Tensor, t: Tensor, exact: bool = True) -> Local:
    """Cost, gradient and Hessian at a batch of poses.

    Args:
        problem: the problems.
        R: rotations, `(B, 3, 3)`.
        t: translations in object radii, `(B, 3)`.
        exact: add the second derivative of the projection; without it the Hessian is Gauss-Newton's.

    Returns:
        The local model; its cost is infinite where a point lies behind the camera.
    """
    q, inverse, u, front = camera_points(problem, R, t)
    r = u - problem.x
    loss, weight = (None, None) if problem.delta is None else huber(r, problem.delta)
    c = problem.c if weight is None else problem.c * weight
    sums = torch.bmm(products(q), _weights(c[:, None], inverse, u, r, exact).mT)
    system = assemble(sums, problem.metric, exact)
    if exact and weight is not None:
        system = system - _outlier_curvature(problem, q, _back(problem.affine, u, r, inverse), r, weight)
    cost = sums[:, 3, 7] / 2 if loss is None else (problem.c * loss).sum(-1)
    return Local(torch.where(front, cost, torch.inf), system)


def _weights(c: Tensor, inverse: Tensor, u: Tensor, r: Tensor, exact: bool) -> Tensor:
    """Weights `(B, 8, n)` of the sums over the points: four of the Hessian, three of the gradient, one of the cost."""
    first = c * inverse
    second = first * inverse
    (u0, u1), (r0, r1) = u.split(1, 1), r.split(1, 1)
    across, size = torch.addcmul(u0 * r0, u1, r1), torch.addcmul(u0 * u0, u1, u1)
    square = torch.addcmul(r0 * r0, r1, r1)
    s, size = (u + r, torch.add(size, across, alpha=2)) if exact else (u, size)
    return torch.cat([second, s * second, size * second, r * first, across * first, square * c], 1)


def _back(affine: Tensor, u: Tensor, r: Tensor, inverse: Tensor) -> Tensor:
    """`B^T r`, `(B, 3, n)`."""
    return torch.cat([torch.bmm(affine.mT, r), -(u * r).sum(1, keepdim=True)], 1) * inverse


def _outlier_curvature(problem: Problem, q: Tensor, back: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    """What Huber's flattening takes off the system: along the residual its second derivative is zero."""
    inside = weight >= 1
    square = torch.where(inside, 1.0, (r * r).sum(1))
    along = torch.cat([torch.linalg.cross(q, back, dim=1), back], 1)
    change = (along * torch.where(inside, 0.0, problem.c * weight / square)[:, None]) @ along.mT
    return torch.nn.functional.pad(change, (0, 0, 0, 1))
