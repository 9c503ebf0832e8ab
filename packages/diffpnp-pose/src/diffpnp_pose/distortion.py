"""Lens distortion: OpenCV's models, both ways, with derivatives.

On the way into the image a ray `(x, y) = p_xy / p_z` is bent before the camera matrix is applied.

"opencv", with `r^2 = x^2 + y^2` and coefficients `k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tau_x tau_y]]]]`:

    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6)/(1 + k4 r^2 + k5 r^4 + k6 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2) + s1 r^2 + s2 r^4
    y' = y (the same) + p1 (r^2 + 2 y^2) + 2 p2 x y + s3 r^2 + s4 r^4

and last the homography of a sensor that is tilted by `tau_x, tau_y`. "fisheye", with `a = atan(r)` and `k1 k2 k3 k4`:

    (x', y') = (x, y)/r (a + k1 a^3 + k2 a^5 + k3 a^7 + k4 a^9)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_COUNTS = {"opencv": (4, 5, 8, 12, 14), "fisheye": (4,)}
_STEPS = 30
_RECORDED_STEPS = 2  # each squares the error, so that two carry second derivatives
_MISS = 1e-9  # of the ray; beyond it there is no ray that the lens bends to this one


@dataclass(frozen=True, eq=False)
class Distortion:
    """The distortion of a lens.

    Attributes:
        coefficients: as `cv2.calibrateCamera` gives them, `(..., 4)`, 5, 8, 12 or 14; `(..., 4)` of "fisheye".
        model: "opencv" or "fisheye".

    Raises:
        TypeError: the coefficients are no tensor.
        ValueError: the model is unknown, or has another number of coefficients.
    """

    coefficients: Tensor
    model: Literal["opencv", "fisheye"] = "opencv"

    def __post_init__(self) -> None:
        if self.model not in _COUNTS:
            raise ValueError(f'the model of a distortion must be "opencv" or "fisheye", got {self.model!r}')
        if not isinstance(self.coefficients, Tensor):
            raise TypeError(f"distortion coefficients must be a torch tensor, got {type(self.coefficients).__name__}")
        counts = _COUNTS[self.model]
        if self.coefficients.dim() < 1 or self.coefficients.shape[-1] not in counts:
            wanted = " or ".join(map(str, counts))
            raise ValueError(f"{self.model} needs {wanted} coefficients, got {tuple(self.coefficients.shape)}")

    def distort(self, rays: Tensor) -> Tensor:
        """Where rays `p_xy / p_z` appear, in the same units.

        Args:
            rays: `(..., n, 2)`.

        Returns:
            Bent rays, `(..., n, 2)`; differentiable, for rays and coefficients.
        """
        k = _filled(self.coefficients.to(rays))
        if self.model == "fisheye":
            return _fisheye(rays, k)
        return _tilted(_bent(rays, k), _tilt(k)) if self._tilts else _bent(rays, k)

    def undistort(self, rays: Tensor) -> Tensor:
        """The rays that appear at `rays`: the inverse of `distort`, by Newton's method.

        Args:
            rays: bent rays, `(..., n, 2)`.

        Returns:
            Rays, `(..., n, 2)`; differentiable, for rays and coefficients. NaN where the lens bends no ray there.
        """
        k = _filled(self.coefficients.to(rays))
        if self.model == "fisheye":
            return _fisheye_inverse(rays, k)
        return _straight(_tilted(rays, torch.linalg.inv(_tilt(k))) if self._tilts else rays, k)

    @property
    def _tilts(self) -> bool:
        return self.coefficients.shape[-1] == 14


def undistort_points(points_2d: Tensor, K: Tensor, distortion: Distortion) -> Tensor:
    """Pixels that a camera without distortion would show instead.

    Args:
        points_2d: pixels of the distorted image, `(..., n, 2)`.
        K: camera matrices, `(..., 3, 3)`, third row `(0, 0, 1)`.
        distortion: that of the lens; its leading dimensions broadcast with those of the points.

    Returns:
        Pixels, `(..., n, 2)`, in at least float32; differentiable, for all three. NaN where the lens shows nothing.
    """
    with torch.autocast(points_2d.device.type, enabled=False):
        dtype = torch.promote_types(points_2d.dtype, torch.float32)
        work = torch.float32 if points_2d.device.type == "mps" else torch.float64
        K, x = K.to(work), points_2d.to(work)
        affine, centre = K[..., :2, :2].mT, K[..., None, :2, 2]
        rays = torch.linalg.solve_ex(affine, x - centre, left=False)[0]
        return (distortion.undistort(rays) @ affine + centre).to(dtype)


def _filled(coefficients: Tensor) -> tuple[Tensor, ...]:
    """All 14 coefficients, each `(..., 1)`, zero where they were not given."""
    missing = 14 - coefficients.shape[-1]
    return torch.nn.functional.pad(coefficients, (0, missing))[..., None, :].unbind(-1)


def _bent(rays: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    """OpenCV's model but for the tilt."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, _, _ = k
    x, y = rays.unbind(-1)
    r2 = x * x + y * y
    ratio = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    cross = 2 * x * y
    return torch.stack(
        [
            x * ratio + p1 * cross + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
            y * ratio + p1 * (r2 + 2 * y * y) + p2 * cross + r2 * (s3 + r2 * s4),
        ],
        -1,
    )


def _jacobian(rays: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    """Derivative of `_bent`, `(..., n, 2, 2)`."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, _, _ = k
    x, y = rays.unbind(-1)
    r2 = x * x + y * y
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    slope_above, slope_below = k1 + r2 * (2 * k2 + 3 * r2 * k3), k4 + r2 * (2 * k5 + 3 * r2 * k6)
    ratio, slope = above / below, (slope_above * below - above * slope_below) / below**2
    prism_x, prism_y = s1 + 2 * r2 * s2, s3 + 2 * r2 * s4
    mixed = 2 * (p1 * x + p2 * y)
    rows = [
        ratio + 2 * x * (x * slope + prism_x) + 2 * p1 * y + 6 * p2 * x,
        2 * y * (x * slope + prism_x) + mixed,
        2 * x * (y * slope + prism_y) + mixed,
        ratio + 2 * y * (y * slope + prism_y) + 6 * p1 * y + 2 * p2 * x,
    ]
    return torch.stack(rows, -1).unflatten(-1, (2, 2))


def _straight(target: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    """The inverse of `_bent`."""
    with torch.no_grad():
        fixed, held = target.detach(), tuple(value.detach() for value in k)
        rays = fixed
        for _ in range(_STEPS):
            step = _newton_step(rays, fixed, held)
            rays = rays - step * (0.5 / step.norm(dim=-1, keepdim=True).clamp_min(0.5))
        inverse = torch.linalg.inv_ex(_jacobian(rays, held))[0]
        good = ((_bent(rays, held) - fixed).norm(dim=-1) < _MISS * (1 + fixed.norm(dim=-1))) & (
            torch.linalg.det(_jacobian(rays, held)) > 0
        )
        # harmless numbers in place of what is thrown away, or their derivatives are NaN
        rays = torch.where(good[..., None], rays, 0.0)
        inverse = torch.where(good[..., None, None], inverse, torch.eye(2, dtype=rays.dtype, device=rays.device))
    for _ in range(_RECORDED_STEPS):
        rays = rays - (inverse @ (_bent(rays, k) - target)[..., None]).squeeze(-1)
    return torch.where(good[..., None], rays, torch.nan)


def _newton_step(rays: Tensor, target: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    error = _bent(rays, k) - target
    a, b, c, d = _jacobian(rays, k).flatten(-2).unbind(-1)
    first, second = error.unbind(-1)
    return torch.stack([d * first - b * second, a * second - c * first], -1) / (a * d - b * c)[..., None]


def _tilt(k: tuple[Tensor, ...]) -> Tensor:
    """Homography `(..., 3, 3)` of the tilted sensor."""
    x, y = (value.squeeze(-1) for value in k[12:])
    cx, sx, cy, sy = x.cos(), x.sin(), y.cos(), y.sin()
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    about_x = torch.stack([one, zero, zero, zero, cx, sx, zero, -sx, cx], -1).unflatten(-1, (3, 3))
    about_y = torch.stack([cy, zero, -sy, zero, one, zero, sy, zero, cy], -1).unflatten(-1, (3, 3))
    R = about_y @ about_x
    back = [R[..., 2, 2], zero, -R[..., 0, 2], zero, R[..., 2, 2], -R[..., 1, 2], zero, zero, one]
    return torch.stack(back, -1).unflatten(-1, (3, 3)) @ R


def _tilted(rays: Tensor, homography: Tensor) -> Tensor:
    moved = torch.nn.functional.pad(rays, (0, 1), value=1.0) @ homography.mT
    return moved[..., :2] / moved[..., 2:]


def _fisheye(rays: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    r2 = rays.square().sum(-1)
    small = r2 < 1e-16
    r = torch.where(small, 1.0, r2).sqrt()
    scale = torch.where(small, 1.0, _angle(torch.atan(r), k)[0] / r)
    return rays * scale[..., None]


def _angle(a: Tensor, k: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The polynomial of the fisheye in the angle, and its slope."""
    k1, k2, k3, k4 = k[:4]
    a2 = a * a
    value = a * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    return value, 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + 9 * a2 * k4)))


def _fisheye_inverse(target: Tensor, k: tuple[Tensor, ...]) -> Tensor:
    r2 = target.square().sum(-1)
    small = r2 < 1e-16
    bent = torch.where(small, 1.0, r2).sqrt()
    with torch.no_grad():
        fixed, held = bent.detach(), tuple(value.detach() for value in k)
        a = fixed.clamp_max(1.5) + torch.zeros_like(held[0])
        for _ in range(_STEPS):
            value, slope = _angle(a, held)
            a = (a - ((value - fixed) / slope).clamp(-0.3, 0.3)).clamp(0, 1.57)
        value, slope = _angle(a, held)
        good = ((value - fixed).abs() < _MISS * (1 + fixed)) & (slope > 0)
        a, slope = torch.where(good, a, 0.0), torch.where(good, slope, 1.0)
    for _ in range(_RECORDED_STEPS):
        a = a - (_angle(a, k)[0] - bent) / slope
    scale = torch.where(small, 1.0, torch.where(good, a.tan() / bent, torch.nan))
    return target * scale[..., None]
