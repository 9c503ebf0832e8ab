"""Cost, gradient and Hessian of the reprojection error of a batch of poses, in closed form.

With `q = R z`, `p = q + t`, `u = K p / p_z`, residual `r = u - x` and point weight `c`, the cost is
`F = sum_i c_i rho(|r_i|)`, with `rho(s) = s^2/2` or Huber's function. Poses move in the camera frame,
`p -> exp(dw) q + t + dt`, so that `dp = T (dw, dt)` with `T = [-[q]x, I]`. Writing `b_k = du_k/dp`:

    gradient = sum c T^T g,                            g = sum_k psi_k b_k,   psi = drho/dr
    Hessian  = sum c T^T (B^T D B - (e3 g^T + g e3^T)/p_z) T + rotation term,   D = dpsi/dr
    rotation term (upper left 3x3 block) = sum c ((g q^T + q g^T)/2 - (g . q) I)

The first product alone is the Gauss-Newton matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.devices import kept

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

    def select(self, index: Tensor) -> Problem:
        """The problems at these positions of the batch (an index or a mask); positions may repeat."""
        delta = None if self.delta is None else self.delta[index]
        return Problem(self.x[index], self.z[index], self.affine[index], self.c[index], delta)


@dataclass
class Local:
    """Second-order model of the cost at a pose.

    Attributes:
        cost: costs, `(B,)`; infinite with a point behind the camera.
        system: Hessian, and the gradient as a seventh row, `(B, 7, 7)`: one tensor, since the solver copies it often.
            The seventh column is what the product that they come from leaves there.
    """

    cost: Tensor
    system: Tensor

    @property
    def hessian(self) -> Tensor:
        """Hessians, `(B, 6, 6)`."""
        return self.system[:, :6, :6]

    @property
    def gradient(self) -> Tensor:
        """Gradients, `(B, 6)`."""
        return self.system[:, 6, :6]


@kept
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Constant maps: the rotation term's `(9, 42)` from `g q^T`, and `(7, 3)` that places `T^T e3` among 7 rows."""
    rotation = torch.zeros(3, 3, 7, 6, dtype=dtype)
    for i in range(3):
        for j in range(3):
            rotation[i, j, i, j] += 0.5
            rotation[i, j, j, i] += 0.5
        rotation[i, i, range(3), range(3)] -= 1.0
    place = torch.zeros(7, 3, dtype=dtype)
    place[0, 1], place[1, 0], place[5, 2] = 1.0, -1.0, 1.0
    return rotation.view(9, 42).to(device), place.to(device)


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
    return q, inverse, u, (depth > _NEAREST).all(-1)[:, 0]


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
    b = torch.cat([problem.affine.mT[..., None] * inverse[:, None], -(u * inverse)[:, None]], 1)
    # rows of A: the six columns of the Jacobian and the residual, so that one product gives Hessian, gradient and cost
    A = torch.cat([torch.linalg.cross(q[:, :, None], b, dim=1), b, r[:, None]], 1)
    cA = A * (problem.c if weight is None else problem.c * weight)[:, None, None]
    system = torch.bmm(A.flatten(2), cA.flatten(2).mT)
    cost = system[:, 6, 6] / 2 if loss is None else (problem.c * loss).sum(-1)
    if exact:
        left = system[:, :, :6]
        left.add_(_curvature(q, inverse, (cA[:, :6] * r[:, None]).sum(2)))
        if weight is not None:
            left.sub_(_outlier_curvature(problem, A[:, :6], r, weight))
    return Local(torch.where(front, cost, torch.inf), system)


def _curvature(q: Tensor, inverse: Tensor, lever: Tensor) -> Tensor:
    """Second-derivative terms of the Hessian in the shape of the system; `lever = c T^T g` is `(B, 6, n)`."""
    rotation, place = _constants(q.dtype, q.device)
    back = torch.bmm(torch.cat([q[:, :2] * inverse, inverse], 1), lever.mT)
    depth = torch.bmm(place.expand(q.shape[0], 7, 3), back)  # sum of T^T e3 (T^T g)^T / p_z
    terms = torch.mm(torch.bmm(lever[:, 3:], q.mT).flatten(1), rotation).view(-1, 7, 6)
    terms[:, :6].sub_(depth[:, :6].mT)
    return terms.sub_(depth)


def _outlier_curvature(problem: Problem, J: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    """What Huber's flattening takes off the Hessian: along the residual its second derivative is zero."""
    inside = weight >= 1
    square = torch.where(inside, 1.0, (r * r).sum(1))
    along = (J * r[:, None]).sum(2)
    change = (along * torch.where(inside, 0.0, problem.c * weight / square)[:, None]) @ along.mT
    return torch.nn.functional.pad(change, (0, 0, 0, 1))
