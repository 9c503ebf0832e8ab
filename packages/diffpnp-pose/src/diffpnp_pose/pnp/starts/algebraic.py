"""Start poses from the minimisers of an algebraic error over all rotations, as in SQPnP (Terzakis and Lourakis 2020).

With `B_i = [[1, 0, -x_i], [0, 1, -y_i]]` for the ray `(x_i, y_i)`, the error `sum c |B_i (R z_i + t)|^2` is quadratic
in `t`; eliminating it leaves `r^T Omega r` in the nine entries `r` of R. Its local minima over rotations, reached from
the vectors that Omega scales least, contain the optimum of the reprojection error in their basins, planes and four
points included. Differences from the paper: the start vectors come from inverse subspace iteration (no
eigendecomposition, so no wait for a device), and the minimisation is Newton's method on the rotation group.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from diffpnp_pose.devices import kept
from diffpnp_pose.geometry.quaternions import outer_product_matrix
from diffpnp_pose.pnp.linearise import Problem, cost_of
from diffpnp_pose.pnp.refine import rotated
from diffpnp_pose.pnp.starts.orthographic import rays_of

_VECTORS = 5  # a plane has a null space of three, four points one of four
_SUBSPACE_STEPS = 3
_ROTATION_STEPS = 10
_APART = 0.3  # radians between two solutions that count as distinct


def algebraic_minima(problem: Problem, count: int = 2) -> tuple[Tensor, Tensor]:
    """The best distinct minima of the algebraic error, ranked by reprojection cost.

    Args:
        problem: the problems.
        count: number of solutions; where an item has fewer, the best is repeated.

    Returns:
        Rotations `(count, B, 3, 3)` and translations `(count, B, 3)`.
    """
    omega, to_translation = _omega(problem)
    starts = _starts(omega)
    s, batch = starts.shape[:2]
    repeated = omega.repeat(s, 1, 1)
    R = _minimise(repeated, starts.flatten(0, 1))
    t = (to_translation.repeat(s, 1, 1) @ R.flatten(1)[..., None]).squeeze(-1)
    index = torch.arange(batch, device=R.device).repeat(s)
    cost = cost_of(problem.select(index), R, t).view(s, batch)
    behind = t[:, 2].view(s, batch) <= 0
    return best_distinct(R.view(s, batch, 3, 3), t.view(s, batch, 3), torch.where(behind, torch.inf, cost), count)


def _omega(problem: Problem) -> tuple[Tensor, Tensor]:
    """Omega `(B, 9, 9)` and the matrix `(B, 3, 9)` that gives the best t of a row-major R."""
    rays, c, z = rays_of(problem), problem.c, problem.z
    one = torch.ones_like(c)
    x, y = rays.unbind(1)
    zero = torch.zeros_like(c)
    Q = torch.stack([one, zero, -x, zero, one, -y, -x, -y, x * x + y * y], 1) * c[:, None]  # B^T B, (B, 9, n)
    zz = (z[:, :, None] * z[:, None]).flatten(1, 2)
    quadratic = (Q @ zz.mT).view(-1, 3, 3, 3, 3).transpose(2, 3).reshape(-1, 9, 9)
    linear = (Q @ z.mT).view(-1, 3, 9)
    to_translation = -torch.linalg.solve_ex(Q.sum(-1).view(-1, 3, 3), linear)[0]
    return quadratic + linear.mT @ to_translation, to_translation


def _starts(omega: Tensor) -> Tensor:
    """Rotations `(S, B, 3, 3)` nearest to plus and minus the vectors that Omega scales least."""
    trace = omega.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    eye = torch.eye(9, dtype=omega.dtype, device=omega.device)
    inverse = torch.linalg.inv_ex(omega / trace + 1e-7 * eye)[0]
    inverse = inverse / inverse.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    block = _first_block(omega.dtype, omega.device).expand(omega.shape[0], -1, -1)
    for _ in range(_SUBSPACE_STEPS):
        block = _orthonormalise(inverse @ block)
    vectors = block.permute(2, 0, 1).unflatten(-1, (3, 3))
    return nearest_rotation(torch.cat([vectors, -vectors]))


@kept
def _first_block(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Vectors `(9, k)` in no special position to start from; kept, since copying them would wait for the device."""
    draw = random.Random(0)  # not torch's, which a transform of torch.func may forbid
    rows = [[draw.gauss(0, 1) for _ in range(_VECTORS)] for _ in range(9)]
    return torch.tensor(rows, dtype=dtype).to(device)


def _orthonormalise(block: Tensor) -> Tensor:
    """Gram-Schmidt on the columns of `(B, 9, k)`."""
    columns: list[Tensor] = []
    for column in block.unbind(-1):
        for done in columns:
            column = column - done * (done * column).sum(-1, keepdim=True)
        columns.append(column / column.norm(dim=-1, keepdim=True).clamp_min(1e-30))
    return torch.stack(columns, -1)


def nearest_rotation(M: Tensor) -> Tensor:
    """Rotations near matrices `(..., 3, 3)`: Davenport's quaternion by repeated squaring, exact for a rotation.

    Good to start an iteration from; not the exact projection where two quaternions fit almost equally well.
    """
    K = (M.flatten(-2) @ outer_product_matrix(M.dtype, M.device)[:9]).unflatten(-1, (4, 4))
    size = K.square().sum((-2, -1), keepdim=True).sqrt().clamp_min(1e-30)
    K = K / size + torch.eye(4, dtype=K.dtype, device=K.device)
    for _ in range(6):
        K = K @ K
        K = K / K.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    largest = K.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*K.shape[:-2], 1, 4)
    q = K.gather(-2, largest).squeeze(-2)
    return _rotation(q / q.norm(dim=-1, keepdim=True))


def _rotation(q: Tensor) -> Tensor:
    """Rotation matrices `(..., 3, 3)` of unit quaternions `(w, x, y, z)`."""
    w, x, y, z = q.unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z)]
    rows += [1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x)]
    rows += [1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _minimise(omega: Tensor, R: Tensor) -> Tensor:
    """Damped Newton steps on the rotation group for `r^T Omega r`; a step that does not descend is undone."""
    scale = omega.diagonal(dim1=1, dim2=2).sum(-1)[:, None]
    omega = omega / scale[..., None]
    product = (omega @ R.flatten(1)[..., None]).view(-1, 3, 3)
    value = (product * R).sum((1, 2))
    damping = torch.full_like(value, 1e-3)
    for _ in range(_ROTATION_STEPS):
        new_R = rotated(R, _rotation_step(omega, R, product, damping))
        new_product = (omega @ new_R.flatten(1)[..., None]).view(-1, 3, 3)
        new_value = (new_product * new_R).sum((1, 2))
        accept = new_value < value
        R = torch.where(accept[:, None, None], new_R, R)
        product = torch.where(accept[:, None, None], new_product, product)
        value = torch.where(accept, new_value, value)
        damping = torch.where(accept, damping * 0.1, damping * 10)
    return R


def _rotation_step(omega: Tensor, R: Tensor, product: Tensor, damping: Tensor) -> Tensor:
    """Step `(B, 3)`: `dr = G d` with columns `vec([e_k]x R)`; the Hessian adds `sym(N) - tr(N) I`, `N = P R^T`."""
    zero = torch.zeros_like(R[:, 0])
    first, second, third = R.unbind(1)
    columns = [
        torch.cat(parts, -1) for parts in ((zero, -third, second), (third, zero, -first), (-second, first, zero))
    ]
    G = torch.stack(columns, -1)
    gradient = (G.mT @ product.flatten(1)[..., None]).squeeze(-1)
    N = product @ R.mT
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    H = G.mT @ omega @ G + (N + N.mT) / 2 - N.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * eye
    H = H + torch.diag_embed(H.diagonal(dim1=1, dim2=2).abs() * damping[:, None] + 1e-12)
    return -torch.linalg.solve_ex(H, gradient)[0]


def best_distinct(R: Tensor, t: Tensor, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` cheapest of `S` solutions per item that are a rotation of `_APART` apart."""
    batch = torch.arange(R.shape[1], device=R.device)
    best = first = cost.argmin(0)
    rotations, translations = [R[best, batch]], [t[best, batch]]
    for _ in range(count - 1):
        cosine = ((R * rotations[-1]).sum((-2, -1)) - 1) / 2
        cost = torch.where(cosine > math.cos(_APART), torch.inf, cost)
        best = torch.where(cost.amin(0).isinf(), first, cost.argmin(0))
        rotations.append(R[best, batch])
        translations.append(t[best, batch])
    return torch.stack(rotations), torch.stack(translations)
