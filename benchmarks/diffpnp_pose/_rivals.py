"""Other solvers behind one signature, `(x (B, n, 2), z (n, 3), K (3, 3)) -> R (B, 3, 3), t (B, 3)`."""

from __future__ import annotations

import warnings
from typing import Any

import cv2
import numpy as np
import torch
from diffpnp_pose import project_pose, so3_exp, transform
from diffpnp_pose.pnp.epnp_backends import load_efficient_pnp
from torch import Tensor

OPENCV = {
    "cv2 ITERATIVE": cv2.SOLVEPNP_ITERATIVE,
    "cv2 SQPNP": cv2.SOLVEPNP_SQPNP,
    "cv2 EPNP": cv2.SOLVEPNP_EPNP,
}


def opencv_poses(flag: int, x: Tensor, z: Tensor, K: Tensor) -> np.ndarray:
    """Poses `(B, 6)` by a loop over the items; NaN where OpenCV raises or fails."""
    xs, zs, ks = x.detach().numpy(), z.numpy(), K.numpy()
    poses = np.full((len(xs), 6), np.nan)
    for b in range(len(xs)):
        try:
            ok, w, t = cv2.solvePnP(zs, xs[b], ks, None, flags=flag)
        except cv2.error:
            continue
        if ok:
            poses[b, :3], poses[b, 3:] = w[:, 0], t[:, 0]
    return poses


def opencv(name: str, x: Tensor, z: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """An OpenCV solver by its name in `OPENCV`."""
    poses = torch.from_numpy(opencv_poses(OPENCV[name], x, z, K))
    return so3_exp(poses[:, :3]), poses[:, 3:]


def kornia_dlt(x: Tensor, z: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Kornia's batched direct linear transform."""
    from kornia.geometry.calibration import solve_pnp_dlt

    found = solve_pnp_dlt(z.expand(len(x), -1, -1), x, K.expand(len(x), 3, 3))
    return found[..., :3], found[..., 3]


def pytorch3d_epnp(x: Tensor, z: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch3D's EPnP, its rows turned into columns."""
    rays = (x - K[:2, 2]) @ torch.linalg.inv(K[:2, :2]).mT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of points behind the camera in candidates that it then discards
        solution = load_efficient_pnp()(z.expand(len(x), -1, -1).contiguous(), rays)
    return solution.R.mT, solution.T


class PerItem(torch.autograd.Function):
    """Chen et al.'s published layer, written anew: OpenCV per item forward, six scalar backward passes per item.

    `lean` leaves out two wastes of the published code: the consensus before the solver, and coefficients from n x n
    projections of which n are used.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, K: Tensor, faster: bool, lean: bool) -> Tensor:
        """Poses `(B, 6)` of image points `(B, n, 2)`."""
        if lean:
            poses = opencv_poses(cv2.SOLVEPNP_ITERATIVE, x, z, K)
        else:
            poses = np.stack([consensus_pose(item, z.numpy(), K.numpy()) for item in x.detach().numpy()])
        found = torch.from_numpy(poses).to(x)
        ctx.save_for_backward(x, z, K, found)
        ctx.options = faster, lean
        return found

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the image points, from the depth-weighted constraint."""
        x, z, K, poses = ctx.saved_tensors
        items = zip(x, poses, grad_outputs[0], strict=True)
        found = torch.stack([per_item_gradient(point, z, K, pose, up, *ctx.options) for point, pose, up in items])
        return found, None, None, None, None


def consensus_pose(x: np.ndarray, z: np.ndarray, K: np.ndarray) -> np.ndarray:
    """OpenCV's consensus, then its iterative solver on all points from there, as published."""
    _, w, t, _ = cv2.solvePnPRansac(z, x, K, None, flags=cv2.SOLVEPNP_ITERATIVE, confidence=0.9999, reprojectionError=3)
    _, w, t = cv2.solvePnP(z, x, K, None, flags=cv2.SOLVEPNP_ITERATIVE, useExtrinsicGuess=True, rvec=w, tvec=t)
    return np.concatenate([w, t])[:, 0]


def coefficients(z: Tensor, y: Tensor, K: Tensor, graph: bool, lean: bool) -> Tensor:
    """Derivatives `(n, 2, 6)` of the image points by the pose."""
    repeated = y.expand(len(z), 6)
    if lean:
        image = project_pose(z[:, None], repeated, K)[:, 0]  # point i with copy i of the pose
    else:
        image = project_pose(z, repeated, K).diagonal(dim1=0, dim2=1).mT  # all points with all copies
    parts = [torch.autograd.grad(image[:, k].sum(), repeated, retain_graph=True, create_graph=graph) for k in (0, 1)]
    return torch.stack([part[0] for part in parts], 1)


def per_item_gradient(x: Tensor, z: Tensor, K: Tensor, pose: Tensor, up: Tensor, faster: bool, lean: bool) -> Tensor:
    """Gradient `(n, 2)` of one item by the published constraint, all derivatives by autograd."""
    with torch.enable_grad():
        x, y = x.detach().requires_grad_(), pose.detach().requires_grad_()
        factors = coefficients(z, y, K, not faster, lean)
        depth = transform(z, so3_exp(y[:3]), y[3:])[:, 2:]
        f = (factors * (depth * (x - project_pose(z, y, K)))[..., None]).sum((0, 1))
        parts = [torch.autograd.grad(f[j], (y, x), retain_graph=True) for j in range(6)]
    jacobian = torch.stack([part[0] for part in parts])
    v = torch.linalg.solve(jacobian.mT, up)
    return -(v[:, None, None] * torch.stack([part[1] for part in parts])).sum(0)
