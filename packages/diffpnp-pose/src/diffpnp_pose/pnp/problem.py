"""Checking the inputs of a PnP call and bringing them to a scale where every threshold is dimensionless."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpnp_pose.devices import kept, readable
from diffpnp_pose.pnp.linearise import Problem

LEAST_POINTS = 4
_FINE = 1e-12  # relative rounding that is never looked at
_COARSE = 3e-3  # rounding of the object points from which on they are not trusted, in object radii


@dataclass
class Inputs:
    """Inputs of equal batch size: image points `x (B, n, 2)`, object points `z (B, n, 3)`, `K (B, 3, 3)`, `c (B, n)`.

    Attributes:
        x: pixels.
        z: object points.
        K: camera matrices.
        c: weights; zero where the mask is False.
        batch: the leading dimensions that the caller gave.
        dtype: floating type of the result.
        eps: rounding of the object points, relative, by their type or the result's, whichever is coarser.
    """

    x: Tensor
    z: Tensor
    K: Tensor
    c: Tensor
    batch: torch.Size
    dtype: torch.dtype
    eps: float


@dataclass
class Frame:
    """What relates a normalised problem to the caller's units.

    Attributes:
        focal: pixels per unit of the normalised image, `(B, 1)`.
        centre: centroid of the object's points, `(B, 3)`.
        radius: root-mean-square radius of the object's points, `(B, 1)`.
        total: sum of the weights, `(B, 1)`.
        usable: items with finite inputs, nonnegative weights and at least four points, `(B,)`.
    """

    focal: Tensor
    centre: Tensor
    radius: Tensor
    total: Tensor
    usable: Tensor

    def translation(self, R: Tensor, t: Tensor) -> Tensor:
        """Translations `(B, 3)` in the caller's units of poses of the normalised problem."""
        return self.radius * t - (R @ self.centre[..., None]).squeeze(-1)

    def pixels2(self, cost: Tensor) -> Tensor:
        """Costs `(B,)` in squared pixels of costs of the normalised problem."""
        return cost * self.total[:, 0] * self.focal[:, 0] ** 2


def gather_inputs(x: Tensor, z: Tensor, K: Tensor, weights: Tensor | None, mask: Tensor | None) -> Inputs:
    """Broadcast the leading dimensions, flatten them, and go to float64 (float32 where a device has no float64).

    Args:
        x: image points, `(..., n, 2)`.
        z: object points, `(..., n, 3)`.
        K: camera matrices, `(..., 3, 3)`.
        weights: nonnegative point weights, `(..., n)`.
        mask: which points are present, `(..., n)`.

    Returns:
        The inputs, still part of the autograd graph.

    Raises:
        ValueError: shapes do not fit, there are fewer than four points, or K is singular.
    """
    _check_shapes(x, z, K, weights, mask)
    tensors = {"points_2d": (x, 2), "points_3d": (z, 2), "K": (K, 2), "weights": (weights, 1), "mask": (mask, 1)}
    leading = [value.shape[:-d] for value, d in tensors.values() if value is not None]
    try:
        # torch's function is slow, and mostly there is one shape; sizes in a traced graph have no hash
        distinct = [s for k, s in enumerate(leading) if s and not any(s == other for other in leading[:k])]
        batch = torch.broadcast_shapes(*distinct) if len(distinct) != 1 else distinct[0]
    except RuntimeError:
        shapes = {name: tuple(value.shape) for name, (value, _) in tensors.items() if value is not None}
        raise ValueError(f"leading dimensions do not broadcast: {shapes}") from None
    dtype = torch.promote_types(torch.promote_types(x.dtype, z.dtype), torch.float32)
    eps = max(torch.finfo(z.dtype).eps, torch.finfo(dtype).eps)
    work = torch.float32 if x.device.type == "mps" else torch.float64
    n = x.shape[-2]
    c = torch.ones(n, dtype=work, device=x.device) if weights is None else weights.to(work)
    if mask is not None:
        c = torch.where(mask, c, 0.0)
    _check_camera(K)

    def flat(value: Tensor, *tail: int) -> Tensor:
        return value.to(work).expand(*batch, *tail).reshape(math.prod(batch), *tail)

    return Inputs(flat(x, n, 2), flat(z, n, 3), flat(K, 3, 3), flat(c, n), batch, dtype, eps)


def check_tensors(x: Tensor, z: Tensor, K: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
    """Refuse what is no tensor, and tensors of several devices.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: they lie on different devices.
    """
    for name, value in (("points_2d", x), ("points_3d", z), ("K", K), ("weights", weights), ("mask", mask)):
        if not isinstance(value, Tensor):
            if value is None and name in ("weights", "mask"):
                continue
            raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}: give torch.as_tensor({name})")
        if value.device != x.device:
            raise ValueError(f"all tensors must be on one device: points_2d is on {x.device}, {name} on {value.device}")


def _check_shapes(x: Tensor, z: Tensor, K: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
    for name, value, tail in (("points_2d", x, (2,)), ("points_3d", z, (3,)), ("K", K, (3, 3))):
        wanted = "(..., 3, 3)" if name == "K" else f"(..., n, {tail[0]})"
        if value.dim() < 2 or tuple(value.shape[-len(tail) :]) != tail:
            raise ValueError(f"{name} must have shape {wanted}, got {tuple(value.shape)}")
        if not value.is_floating_point() or value.dtype.itemsize < 2:
            raise ValueError(f"{name} must hold floating-point numbers of 16 bits or more, got {value.dtype}")
    n = x.shape[-2]
    if z.shape[-2] != n:
        raise ValueError(f"points_2d {tuple(x.shape)} and points_3d {tuple(z.shape)} have different numbers of points")
    if n < LEAST_POINTS:
        raise ValueError(f"a pose needs at least {LEAST_POINTS} points, got points_2d of shape {tuple(x.shape)}")
    for name, value in (("weights", weights), ("mask", mask)):
        if value is not None and (value.dim() < 1 or value.shape[-1] != n):
            raise ValueError(f"{name} must have shape (..., {n}), got {tuple(value.shape)}")
    if weights is not None and weights.is_complex():
        raise ValueError(f"weights must hold real numbers, got {weights.dtype}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, got {mask.dtype}")


def _check_camera(K: Tensor) -> None:
    """Refuse a finite singular K, or one whose third row is not (0, 0, 1); skipped off the CPU, where it would wait."""
    if not readable(K):
        return
    K = K.detach().double()  # squares of half-precision numbers overflow
    block = K[..., :2, :2].flatten(-2)
    a, b, c, d = block.unbind(-1)
    regular = (a * d - b * c).abs() > 1e-12 * block.square().sum(-1)
    third_row = (K[..., 2, :] == K.new_tensor([0.0, 0.0, 1.0])).all(-1)
    if (regular & third_row).all():
        return
    finite = K.isfinite().flatten(-2).all(-1)
    if (finite & ~regular).any():
        raise ValueError(f"K is singular (focal lengths must not be 0): K of shape {tuple(K.shape)} holds\n{K}")
    if (finite & ~third_row).any():
        raise ValueError(f"the third row of K must be (0, 0, 1): K of shape {tuple(K.shape)} holds\n{K}")


def resolved(frame: Frame, eps: float) -> Tensor | bool:
    """Whether object points with this relative rounding still show the object, `(B,)`: not far from the origin."""
    if eps < _FINE:
        return True
    return eps / 2 * frame.centre.norm(dim=-1) < _COARSE * frame.radius[:, 0]


def normalise(inputs: Inputs) -> tuple[Problem, Frame]:
    """The dimensionless problem and its frame; unusable items become a harmless stand-in.

    The frame is constant with respect to autograd: it is a change of units, which the optimum does not depend on.

    Args:
        inputs: the flattened inputs.

    Returns:
        The problem, differentiable with respect to the inputs, and the frame.
    """
    frame = _clean_frame(inputs)
    clean = frame is not None
    frame = frame or _frame(inputs)
    affine = inputs.K[:, :2, :2] / frame.focal[..., None]
    x = (inputs.x - inputs.K[:, None, :2, 2]) / frame.focal[..., None]
    z = (inputs.z - frame.centre[:, None]) / frame.radius[..., None]
    c = inputs.c / frame.total
    if clean:
        return Problem(x.mT.contiguous(), z.mT.contiguous(), affine, c), frame
    usable, present = frame.usable[:, None], inputs.c.detach() > 0
    affine = torch.where(usable[..., None], affine, torch.eye(2, dtype=affine.dtype, device=x.device))
    stand_in = _stand_in(x.shape[1], x.dtype, x.device)
    image = stand_in[:, :2] / (stand_in[:, 2:] + 4)
    keep = present[..., None] & usable[..., None]
    spare = ~frame.usable[:, None, None]
    x = torch.where(keep, x, torch.where(spare, image, 0.0)).mT.contiguous()
    z = torch.where(keep, z, torch.where(spare, stand_in, 0.0)).mT.contiguous()
    c = torch.where(present & usable, c, torch.where(usable, 0.0, 1 / x.shape[-1]))
    return Problem(x, z, affine, c), frame


@torch.no_grad()
def _clean_frame(inputs: Inputs) -> Frame | None:
    """`_frame`, to the bit, of a batch on the CPU in which there is nothing to leave out; None for others."""
    x, z, K, c = inputs.x, inputs.z, inputs.K, inputs.c
    if not readable(x) or not (x.sum() + z.sum() + K.sum() + c.sum()).isfinite() or not (c > 0).all():
        return None
    focal = K[:, :2, :2].square().sum((1, 2)).div(2).sqrt()[:, None]
    total = c.sum(-1, keepdim=True)
    centre = (c[..., None] * z).sum(1) / total
    radius = ((c[..., None] * (z - centre[:, None]).square()).sum((1, 2)) / total[:, 0]).sqrt()[:, None]
    usable = ((focal > 0) & (radius > 0))[:, 0]
    return Frame(focal, centre, radius, total, usable) if usable.all() else None


@torch.no_grad()
def _frame(inputs: Inputs) -> Frame:
    K, c = inputs.K, inputs.c
    present = c != 0  # NaN weights count, and make the item unusable
    numbers = torch.cat([inputs.x, inputs.z], -1).isfinite().all(-1)
    fine = (numbers & c.isfinite() & (c > 0)) | ~present
    usable = fine.all(-1) & (present.sum(-1) >= LEAST_POINTS) & K.isfinite().flatten(1).all(-1)
    focal = K[:, :2, :2].square().sum((1, 2)).div(2).sqrt()[:, None]
    usable = usable & (focal[:, 0] > 0)
    c = torch.where(usable[:, None], c, 1.0)
    total = c.sum(-1, keepdim=True)
    z = torch.where((present & usable[:, None])[..., None], inputs.z, 0.0)
    centre = (c[..., None] * z).sum(1) / total
    offset = torch.where(present[..., None], z - centre[:, None], 0.0)
    radius = ((c[..., None] * offset.square()).sum((1, 2)) / total[:, 0]).sqrt()[:, None]
    usable = usable & (radius[:, 0] > 0)
    one = torch.ones_like(focal)
    keep = usable[:, None]
    return Frame(
        torch.where(keep, focal, one), centre, torch.where(keep, radius, one), torch.where(keep, total, one), usable
    )


@kept
def _stand_in(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A solid cloud of n points, about the size of a normalised object, in no special position."""
    draw = random.Random(1)  # not torch's, which a transform of torch.func may forbid
    cloud = torch.tensor([[draw.gauss(0, 1) for _ in range(3)] for _ in range(n)], dtype=torch.float64)
    cloud = cloud - cloud.mean(0)
    return (cloud / cloud.square().sum(-1).mean().sqrt()).to(device, dtype)
