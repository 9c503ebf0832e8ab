"""Poses of three points: the minimal problem, with its up to four solutions, batched and without a branch.

With unit rays `f_i` and depths `s_i` along them, the three distances give `s_i^2 + s_j^2 - 2 s_i s_j f_i . f_j = a_ij`.
Two combinations without the constants are conics in `(s_1 : s_2 : s_3)`. Some member of the pencil that they span is
a pair of lines (its determinant, a cubic, vanishes); each line meets another member in two points (Persson and Nordberg
2018; Ding et al. 2023). Depths then take Newton steps on the distances, which also mends double roots.

Problems stand along the last dimension and coordinates along the first, so that every operation runs over long rows.
Symmetric matrices are their entries `11, 12, 13, 22, 23, 33`; pairs of points are `12, 13, 23`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpnp_pose.devices import kept

_PENCIL_ANGLE = 0.7  # between the pencil's basis and its special members, which symmetric triangles have
_POLISH_STEPS = 2
_RESIDUAL = 1e-6  # of the squared distances, relative to their sum
_FULL = (0, 1, 2, 1, 3, 4, 2, 4, 5)  # entries of the whole matrix


def three_point_poses(rays: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """All poses that put three points on their rays.

    Args:
        rays: normalised image coordinates `p_xy / p_z` of three points, `(2, 3, N)`.
        z: object points, `(3, 3, N)`, the points along the second dimension.

    Returns:
        Rotations `(3, 3, 4, N)` and translations `(3, 4, N)` with all points in front of the camera; NaN in the place
        of solutions that do not exist. Solutions may repeat.
    """
    f = torch.cat([rays, torch.ones_like(rays[:1])])
    f = f / (f * f).sum(0).sqrt()
    c = torch.stack([(f[:, i] * f[:, j]).sum(0) for i, j in ((0, 1), (0, 2), (1, 2))])
    edges = torch.stack([z[:, 1] - z[:, 0], z[:, 2] - z[:, 0], z[:, 2] - z[:, 1]], 1)
    a = (edges * edges).sum(0)
    total = a.sum(0)
    a = a / total
    s = _depths(_directions(c, a), c[:, None], a[:, None]) * total.sqrt()
    return _poses(s, f, edges, z[:, 0])


def _directions(c: Tensor, a: Tensor) -> Tensor:
    """Depths `(3, 4, N)` up to a factor, from cosines and squared sides of the pairs, `(3, N)`: where conics meet."""
    first, second = _pencil(c, a)
    adjugates = _adjugate(first), _adjugate(second)
    c0, c1, c2, c3 = (
        _trace_of_product(*pair) / d
        for pair, d in (
            ((first, adjugates[0]), 3),
            ((second, adjugates[0]), 1),
            ((first, adjugates[1]), 1),
            ((second, adjugates[1]), 3),
        )
    )
    gamma = _cubic_root(c2 / c3, c1 / c3, c0 / c3)
    return _on_lines(_lines(first + gamma * second), second - gamma * first)


def _pencil(c: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Two members `(6, N)` of the pencil of conics, the second with the larger determinant."""
    c12, c13, c23 = c
    a12, a13, a23 = a
    zero = torch.zeros_like(a12)
    # M12 a23 - M23 a12 and M13 a23 - M23 a13
    D1 = torch.stack([a23, -a23 * c12, zero, a23 - a12, a12 * c23, -a12])
    D2 = torch.stack([a23, zero, -a23 * c13, -a13, a13 * c23, a23 - a13])
    D1, D2 = (D / (D * D).sum(0).sqrt() for D in (D1, D2))
    cosine, sine = math.cos(_PENCIL_ANGLE), math.sin(_PENCIL_ANGLE)
    E1, E2 = cosine * D1 + sine * D2, cosine * D2 - sine * D1
    swap = _trace_of_product(E1, _adjugate(E1)).abs() > _trace_of_product(E2, _adjugate(E2)).abs()
    return torch.where(swap, E2, E1), torch.where(swap, E1, E2)


def _take(values: Tensor, *places: int) -> Tensor:
    """Rows of a tensor."""
    return values.index_select(0, places_on(values.device, places))


@kept
def places_on(device: torch.device, places: tuple[int, ...]) -> Tensor:
    """An index, kept on its device."""
    return torch.tensor(places).to(device)


def _adjugate(S: Tensor) -> Tensor:
    """Adjugates `(6, N)` of symmetric matrices."""
    return _take(S, 3, 2, 1, 0, 1, 0) * _take(S, 5, 4, 4, 5, 2, 3) - _take(S, 4, 1, 2, 2, 0, 1) * _take(
        S, 4, 5, 3, 2, 4, 1
    )


def _trace_of_product(S: Tensor, T: Tensor) -> Tensor:
    """`trace(S T)`, `(N,)`."""
    product = S * T
    return product.sum(0) + product[1] + product[2] + product[4]


def _cubic_root(p: Tensor, q: Tensor, r: Tensor) -> Tensor:
    """The real root of `g^3 + p g^2 + q g + r` that lies farthest from the others."""
    Q, half = (p * p - 3 * q) / 9, (2 * p * p * p - 9 * p * q + 27 * r) / 54
    discriminant = half * half - Q * Q * Q
    size = Q.clamp_min(0).sqrt()
    angle = torch.acos((half.abs() / (size * size * size).clamp_min(1e-300)).clamp_max(1)) / 3
    large = (half.abs() + discriminant.clamp_min(0).sqrt()).clamp_min(1e-300) ** (1 / 3)
    size = torch.where(discriminant < 0, 2 * size * angle.cos(), large + Q / large)
    g = torch.where(half < 0, size, -size) - p / 3
    for _ in range(2):
        slope = q + g * (2 * p + 3 * g)
        g = g - (r + g * (q + g * (p + g))) / torch.where(slope.abs() < 1e-300, 1.0, slope)
    return g


def _lines(C: Tensor) -> Tensor:
    """The two lines `(3, 2, N)` of singular conics `(6, N)`: rank one is left of `C + [p]x`, with `p p^T = -adj C`."""
    B = -_adjugate(C)
    diagonal = _take(B, 0, 3, 5)
    largest = diagonal.argmax(0, keepdim=True)
    root = diagonal.gather(0, largest).clamp_min(1e-300).sqrt()
    whole = _take(B, *_FULL).unflatten(0, (3, 3))
    px, py, pz = whole.gather(0, largest[:, None].expand(1, 3, -1))[0] / root
    a, b, c, d, e, f = C
    M = torch.stack([a, b - pz, c + py, b + pz, d, e - px, c - py, e + px, f])
    place = M.abs().argmax(0)
    M = M.unflatten(0, (3, 3))
    row = M.gather(0, (place // 3).expand(1, 3, -1))[0]
    column = M.gather(1, (place % 3).expand(3, 1, -1))[:, 0]
    return torch.stack([row, column], 1)


def _on_lines(lines: Tensor, conic: Tensor) -> Tensor:
    """The points `(3, 4, N)` of two lines `(3, 2, N)` on a conic `(6, N)`; of a line that passes by, the nearest."""
    x, y, z = lines / (lines * lines).sum(0).sqrt()
    sign = torch.where(z < 0, -1.0, 1.0)
    k = -1 / (sign + z)  # two vectors across a unit vector without a branch (Duff et al. 2017)
    b = x * y * k
    u = torch.stack([1 + sign * x * x * k, sign * b, -sign * x])
    v = torch.stack([b, sign + y * y * k, -y])
    G = _take(conic, *_FULL).view(3, 3, 1, -1)
    Gu, Gv = (G * u).sum(1), (G * v).sum(1)
    A, B, C = (u * Gu).sum(0), (v * Gu).sum(0), (v * Gv).sum(0)
    root = (B * B - A * C).clamp_min(0).sqrt()
    far = -(B + torch.where(B < 0, -root, root))
    return torch.cat([far * u + A * v, C * u + far * v], 1)


def _depths(s: Tensor, c: Tensor, a: Tensor) -> Tensor:
    """Depths `(3, 4, N)` that keep the distances, from their directions; NaN where none does."""
    s = torch.where(s.sum(0) < 0, -s, s)
    si, sj = _take(s, 0, 0, 1), _take(s, 1, 2, 2)
    s = s / (si * si + sj * sj - 2 * c * si * sj).sum(0).clamp_min(1e-300).sqrt()
    for _ in range(_POLISH_STEPS):
        (p, u, y), (q, w, x), (r12, r13, r23) = _distances(s, c, a)
        wy, qx, ux = w * y, q * x, u * x
        det = p * wy + q * ux
        scale = 0.5 / torch.where(det.abs() < 1e-12, torch.inf, det)  # no step where two solutions meet
        step = [wy * r12 + qx * r13 - q * w * r23, ux * r12 - p * x * r13 + p * w * r23]
        step += [p * y * r13 + q * u * r23 - u * y * r12]
        s = s - scale * torch.stack(step)
    good = (_distances(s, c, a)[2].abs().sum(0) < _RESIDUAL) & (s > 0).all(0)
    return torch.where(good, s, torch.nan)


def _distances(s: Tensor, c: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the derivatives of the pairs' squared distances by `s_i` and `s_j`, and what they miss, `(3, 4, N)`."""
    si, sj = _take(s, 0, 0, 1), _take(s, 1, 2, 2)
    forth, back = si - c * sj, sj - c * si
    return forth, back, si * forth + sj * back - a


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products along the first dimension."""
    return _take(a, 1, 2, 0) * _take(b, 2, 0, 1) - _take(a, 2, 0, 1) * _take(b, 1, 2, 0)


def _poses(s: Tensor, f: Tensor, edges: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Poses from depths `(3, 4, N)` along unit rays `f (3, 3, N)`, of a triangle with these edges and first point."""
    P = f[:, :, None] * s
    e1, e2 = P[:, 1] - P[:, 0], P[:, 2] - P[:, 0]
    seen = torch.stack([e1, e2, _cross(e1, e2)])
    d1, d2, _ = edges.unbind(1)
    normal = _cross(d1, d2)
    inverse = torch.stack([_cross(d2, normal), _cross(normal, d1), normal]) / (normal * normal).sum(0)
    R = (seen[:, :, None] * inverse[:, None, :, None]).sum(0)
    return R, P[:, 0] - (R * origin[:, None]).sum(1)
