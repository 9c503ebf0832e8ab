"""Start poses from scaled orthography, perspective put back by iteration (POSIT, DeMenthon and Davis 1995)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.devices import kept, readable
from diffpnp_pose.pnp.linearise import Problem

_COLLINEAR = 1e-8  # product of the two larger relative scatters; 1e-4 of the length is the least width
_FLAT = 1e-3  # smallest relative scatter under which depth is not trusted: a thickness of 3 % of the radius
APART = 1e-4  # of the radius, between two points that are not one
_PERSPECTIVE_STEPS = 2  # the second saves the solver a step, a third would not
_NEAREST_DEPTH = 1.05  # the start keeps every point in front of the camera


@dataclass
class Shape:
    """Second moments of the object's points.

    Attributes:
        scatter: weighted covariance of the points, `(B, 3, 3)`.
        adjugate: adjugate of the scatter, `(B, 3, 3)`.
        determinant: determinant of the scatter, `(B,)`.
        collinear: whether all points lie on one line, so that no pose is determined, `(B,)`.
        flat: whether they lie in one plane, or so nearly that the missing depth must come from orthonormality, `(B,)`.
    """

    scatter: Tensor
    adjugate: Tensor
    determinant: Tensor
    collinear: Tensor
    flat: Tensor

    def select(self, index: Tensor) -> Shape:
        """The moments at these positions of the batch."""
        return Shape(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def shape_of(z: Tensor, c: Tensor) -> Shape:
    """Scatter, adjugate and degeneracy of centred points `z (B, 3, n)` with weights `c (B, n)`; no eigenvectors."""
    scatter = (z * c[:, None]) @ z.mT
    adjugate = adjugate_of(scatter)
    determinant = (scatter[:, 0] * adjugate[:, 0]).sum(-1)
    minors = adjugate.diagonal(dim1=1, dim2=2).sum(-1)
    trace = scatter.diagonal(dim1=1, dim2=2).sum(-1)
    collinear, flat = minors < _COLLINEAR * trace**2, determinant < _FLAT * minors * trace
    return Shape(scatter, adjugate, determinant, collinear, flat)


def enough_points(problem: Problem, shape: Shape) -> Tensor | bool:
    """Whether four of the points are apart, `(B,)`; of a solid object they are."""
    if readable(shape.flat) and not shape.flat.any():
        return True
    left = problem.c > 0
    for _ in range(3):
        one = problem.z.gather(2, left.to(torch.uint8).argmax(-1)[:, None, None].expand(-1, 3, 1))
        left = left & ((problem.z - one).square().sum(1) > APART**2)
    return ~shape.flat | left.any(-1)


def present_first(c: Tensor) -> Tensor:
    """Positions of the points by weight `c (B, n)`: present ones first, in their order."""
    return (c <= 0).to(torch.uint8).argsort(dim=-1, stable=True)


def adjugate_of(S: Tensor) -> Tensor:
    """Adjugates of symmetric matrices, `(B, 3, 3)`."""
    a, b, c = S.unbind(1)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)


def rays_of(problem: Problem) -> Tensor:
    """Normalised image coordinates `p_xy / p_z` of the image points, `(B, 2, n)`."""
    (a, b), (c, d) = (row.unbind(-1) for row in problem.affine.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], -1).view(-1, 2, 2)
    return (adjugate / (a * d - b * c)[:, None, None]) @ problem.x


def weak_perspective(problem: Problem, shape: Shape, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """The pose whose scaled orthographic image fits best, perspective then put back in a few steps.

    A flat object has two such poses, mirrored in depth (Necker reversal), and each is carried through the perspective
    steps; for a solid object the mirrored pose is only the next best guess.

    Args:
        problem: the problems.
        shape: their `shape_of`.
        mirrored: give the second solution.

    Returns:
        Rotations `(B, 3, 3)` and translations `(B, 3)`, every point in front of the camera.
    """
    rays = rays_of(problem)
    inverse = shape.adjugate / shape.determinant.clamp_min(1e-30)[:, None, None]
    side = normal = None
    if mirrored or not readable(shape.flat) or shape.flat.any():
        normal = normal_of(shape)
        inverse = torch.where(shape.flat[:, None, None], _inverse_in_plane(shape, normal), inverse)
        side = torch.where(shape.flat[:, None, None], -normal[:, None] if mirrored else normal[:, None], 0.0)
    fit = torch.bmm(inverse, problem.z * problem.c[:, None]).mT
    nearest = _NEAREST_DEPTH * problem.z.square().sum(1).amax(-1, keepdim=True).sqrt()
    image = rays
    R, depth = _orthographic(image, fit, side, nearest)
    for _ in range(_PERSPECTIVE_STEPS):
        image = (1 + torch.bmm(R[:, 2:], problem.z) / depth[:, None]) * rays
        R, depth = _orthographic(image, fit, side, nearest)
    t = torch.cat([(image * problem.c[:, None]).sum(-1) * depth, depth], 1)
    if not mirrored or normal is None:
        return R, t
    flipped = R[:, :2] - 2 * (R[:, :2] @ normal[:, :, None]) * normal[:, None]
    return _completed(torch.where(shape.flat[:, None, None], R[:, :2], flipped)), t


def _orthographic(image: Tensor, fit: Tensor, side: Tensor | None, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation, and depth `(B, 1)`, whose scaled orthographic image of the points is closest to `image (B, 2, n)`.

    The depth is at least `nearest (B, 1)`. `side (B, 1, 3)` is the normal of flat objects, with the sign of the
    solution wanted, and zero for solid ones; None where all are solid.
    """
    axes = torch.bmm(image, fit)
    if side is not None:
        axes = axes + _missing_depth(axes)[:, :, None] * side
    rows, scale = _orthonormal(axes)
    return _completed(rows), torch.maximum(1 / scale, nearest)


def _completed(rows: Tensor) -> Tensor:
    """Rotations `(B, 3, 3)` from their first two rows."""
    return torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)


def normal_of(shape: Shape) -> Tensor:
    """Direction of least scatter `(B, 3)`: for flat points the adjugate is a multiple of `n n^T`."""
    largest = shape.adjugate.diagonal(dim1=1, dim2=2).argmax(-1)[:, None, None].expand(-1, 1, 3)
    row = shape.adjugate.gather(1, largest).squeeze(1)
    return row / row.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def _inverse_in_plane(shape: Shape, normal: Tensor) -> Tensor:
    """Inverse `(B, 3, 3)` of the scatter of flat points in their plane."""
    outer = normal[:, :, None] * normal[:, None]
    thick = shape.scatter + outer
    adjugate = adjugate_of(thick)
    inverse = adjugate / (thick[:, 0] * adjugate[:, 0]).sum(-1)[:, None, None]
    return inverse - outer * (normal[:, None] @ inverse @ normal[:, :, None])


def _missing_depth(M: Tensor) -> Tensor:
    """Components `k (B, 2)` along the normal that make the rows of `M + k n^T` orthogonal and of equal length.

    `k1 k2 = -m1 . m2` and `k1^2 - k2^2 = |m2|^2 - |m1|^2`: `k1 + i k2` is a complex square root, so `-k` is the other.
    """
    first, second = M.unbind(1)
    product, difference = (first * second).sum(-1), (second * second - first * first).sum(-1)
    modulus = torch.hypot(difference, 2 * product)
    k1 = ((modulus + difference) / 2).clamp_min(0).sqrt()
    k2 = ((modulus - difference) / 2).clamp_min(0).sqrt()
    return torch.stack([k1, torch.where(product > 0, -k2, k2)], -1)


def _orthonormal(M: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest orthonormal rows `(B, 2, 3)` and mean scale `(B, 1)` of `M (B, 2, 3)`, by its polar factor."""
    gram = torch.bmm(M, M.mT).flatten(1)
    adjugate, eye = _constants(M.dtype, M.device)
    other = torch.mm(gram, adjugate)
    root = ((gram * other).sum(1, keepdim=True) / 2).clamp_min(1e-30).sqrt()
    trace = (gram[:, ::3].sum(1, keepdim=True) + 2 * root).sqrt()
    inverse_root = torch.addcmul(other, root, eye) / (trace * root)
    return torch.bmm(inverse_root.view(M.shape[0], 2, 2), M), trace / 2


@kept
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The map `(4, 4)` from the entries of a symmetric 2x2 matrix to its adjugate's, and those of the identity."""
    adjugate = [[0.0, 0.0, 0.0, 1.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    eye = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype, device=device)
    return torch.tensor(adjugate, dtype=dtype, device=device), eye
