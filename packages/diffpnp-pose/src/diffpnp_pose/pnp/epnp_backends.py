"""EPnP as a differentiable function, with PyTorch3D's implementation as an alternative."""

from __future__ import annotations

import contextlib
import sys
import types
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from diffpnp_pose.distortion import Distortion, undistort_points
from diffpnp_pose.pnp.linearise import Problem, cost_of
from diffpnp_pose.pnp.problem import check_tensors, gather_inputs, normalise, resolved
from diffpnp_pose.pnp.starts.control_points import control_point_poses
from diffpnp_pose.pnp.starts.orthographic import enough_points, rays_of, shape_of

_INSTALL_HINT = (
    'backend="pytorch3d" needs PyTorch3D. Next to torch 2.11 or 2.12: pip install "diffpnp-pose[pytorch3d]". '
    "Next to any other torch, without its compiled extension, which EPnP does not need: "
    "PYTORCH3D_NO_EXTENSION=1 pip install --no-build-isolation --no-deps --no-binary easypytorch3d "
    '"easypytorch3d==0.7.9.post1" iopath. An installed pytorch3d of another origin serves as well.'
)


class EPnPResult(NamedTuple):
    """What `epnp` returns.

    Attributes:
        R: rotations, `(..., 3, 3)`, object to camera, acting on columns; differentiable.
        t: translations, `(..., 3)`; differentiable.
        cost: half the weighted sum of squared residuals in squared pixels, `(...)`; not differentiable.
        valid: whether inputs were usable and all points lie in front of the camera, `(...)`.
    """

    R: Tensor
    t: Tensor
    cost: Tensor
    valid: Tensor


def epnp(
    points_2d: Tensor,
    points_3d: Tensor,
    K: Tensor,
    *,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    backend: Literal["torch", "pytorch3d"] = "torch",
    distortion: Distortion | None = None,
) -> EPnPResult:
    """Poses by EPnP (Lepetit et al. 2009): no start pose, no iteration over the pose, differentiable by autograd.

    It minimises an algebraic error, so its pose is not the minimum of the reprojection error;
    `solve_pnp(init="epnp")` goes on from it to that minimum, with the implicit gradient. Choosing between the kernel
    sizes is piecewise constant: the gradient is that of the chosen one.

    Args:
        points_2d: image points in pixels, `(..., n, 2)`, `n >= 4`.
        points_3d: object points, `(..., n, 3)`.
        K: camera matrices, `(..., 3, 3)`.
        weights: nonnegative point weights, `(..., n)`.
        mask: which points are present, boolean, `(..., n)`.
        backend: "torch", this package's: control points at the columns of the square root of the points' scatter,
            kernel sizes 1 to 4, Gauss-Newton on the coefficients, planar objects; or "pytorch3d",
            `pytorch3d.ops.efficient_pnp`: control points on the coordinate axes, kernel sizes 1 to 3, no Gauss-Newton.
            PyTorch3D's rows `X R + T` become this package's columns.
        distortion: that of the lens, taken off the image points first.

    Returns:
        Rotations, translations, costs and validity; invalid items have zero gradients and, where the inputs were
        unusable, the identity at `(0, 0, 1)`.

    Raises:
        ValueError: shapes do not fit, n < 4, K is singular or the backend unknown.
        ImportError: PyTorch3D is asked for and absent; the message says how to install it.
    """
    if backend not in ("torch", "pytorch3d"):
        raise ValueError(f'backend must be "torch" or "pytorch3d", got {backend!r}')
    check_tensors(points_2d, points_3d, K, weights, mask)
    if distortion is not None:
        points_2d = undistort_points(points_2d, K, distortion)
    with torch.autocast(points_2d.device.type, enabled=False):
        inputs = gather_inputs(points_2d, points_3d, K, weights, mask)
        problem, frame = normalise(inputs)
        R, t = control_point_poses(problem) if backend == "torch" else _pytorch3d(problem)
        with torch.no_grad():
            cost = cost_of(problem, R, t)
            finite = R.isfinite().flatten(1).all(-1) & t.isfinite().all(-1)
            shape = shape_of(problem.z, problem.c)
            usable = frame.usable & ~shape.collinear & finite
            valid = usable & cost.isfinite() & resolved(frame, inputs.eps) & enough_points(problem, shape)
        translation = frame.translation(R, t)
        eye = torch.eye(3, dtype=R.dtype, device=R.device)
        R, translation = _keep(R, usable, valid, eye), _keep(translation, usable, valid, eye[2])
        cost = torch.where(usable, frame.pixels2(cost), torch.inf)
    batch, dtype = inputs.batch, inputs.dtype
    return EPnPResult(
        R.to(dtype).view(*batch, 3, 3),
        translation.to(dtype).view(*batch, 3),
        cost.to(dtype).view(batch),
        valid.view(batch),
    )


def _keep(value: Tensor, usable: Tensor, valid: Tensor, default: Tensor) -> Tensor:
    """The value, without gradient where it is not valid and replaced where it is not usable."""
    shape = (-1, *[1] * (value.dim() - 1))
    value = torch.where(valid.view(shape), value, value.detach())
    return torch.where(usable.view(shape), value, default)


def _pytorch3d(problem: Problem) -> tuple[Tensor, Tensor]:
    """Rotations and translations of `efficient_pnp`, which takes `K^-1 x` and gives rows, `X_camera = X R + T`."""
    efficient_pnp = load_efficient_pnp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about points behind the camera in candidates that it then discards
        solution = efficient_pnp(problem.z.mT, rays_of(problem).mT, problem.c)
    return solution.R.mT, solution.T


def load_efficient_pnp() -> Any:
    """PyTorch3D's function. It is pure Python, but its module asks for the compiled extension, which may be absent."""
    with contextlib.suppress(ImportError):
        from pytorch3d.ops import efficient_pnp

        return efficient_pnp
    name = "pytorch3d._C"
    sys.modules[name] = _NoExtension(name)
    try:
        from pytorch3d.ops import efficient_pnp

        return efficient_pnp
    except ImportError as error:
        raise ImportError(_INSTALL_HINT) from error
    finally:
        del sys.modules[name]


class _NoExtension(types.ModuleType):
    """Stands for PyTorch3D's compiled extension while its modules are imported; what needs it says so when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> Any:
            raise RuntimeError(f"{name} needs PyTorch3D's compiled extension, which is not installed")

        return missing
