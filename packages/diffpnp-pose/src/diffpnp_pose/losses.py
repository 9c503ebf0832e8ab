"""Losses of keypoint-based pose estimation with a differentiable PnP layer (Chen et al. 2020 and its reproduction).

`x` are predicted image points, `x*` true ones, `y` the solved pose, `pi` the projection. Image points are in pixels;
means run over items, points and coordinates, so that the number of points does not matter. The published code does the
same, whereas the paper writes sums.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from diffpnp_pose.geometry import project
from diffpnp_pose.pnp.linearise import Problem, cost_of, linearise
from diffpnp_pose.pnp.problem import Frame, gather_inputs, normalise
from diffpnp_pose.pnp.refine import rotated
from diffpnp_pose.pnp.result import PnPResult


def heatmap_loss(heatmaps: Tensor, targets: Tensor) -> Tensor:
    """`l_h`: mean absolute difference of maps, after the softmax.

    Args:
        heatmaps: predicted maps, `(B, J, H, W)`.
        targets: target maps of the same shape.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.
    """
    if heatmaps.shape != targets.shape:
        raise ValueError(f"heatmaps {tuple(heatmaps.shape)} and targets {tuple(targets.shape)} differ in shape")
    return (heatmaps - targets).abs().mean()


def _point_error(first: Tensor, second: Tensor, valid: Tensor | None) -> Tensor:
    """Mean squared coordinate difference over valid items, 0 if there is none."""
    if first.shape != second.shape:
        raise ValueError(f"image points {tuple(first.shape)} and {tuple(second.shape)} differ in shape")
    difference = first - second
    if valid is None:
        return difference.square().mean()
    # a bad pose may project to infinity: choose before squaring, or the gradient is 0 times infinity
    error = torch.where(valid[..., None, None], difference, 0.0).square().mean((-2, -1))
    return error.sum() / valid.sum().clamp_min(1)


def projection_loss(projected: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """`l_proj`: squared distance of the points projected with the solved pose from the true image points.

    Args:
        projected: `pi(z | y, K)` in pixels, `(..., n, 2)`.
        target: true image points, `(..., n, 2)`.
        valid: items to average over, `(...)`; all when None.

    Returns:
        A scalar in squared pixels.
    """
    return _point_error(projected, target, valid)


def regulariser(predicted: Tensor, projected: Tensor, valid: Tensor | None = None) -> Tensor:
    """`l_reg`: squared distance of the predicted image points from those projected with the pose solved from them.

    Args:
        predicted: predicted image points in pixels, `(..., n, 2)`.
        projected: `pi(z | y, K)`, `(..., n, 2)`.
        valid: items to average over, `(...)`; all when None.

    Returns:
        A scalar in squared pixels.
    """
    return _point_error(predicted, projected, valid)


def pose_loss(
    predicted: Tensor, projected: Tensor, target: Tensor, valid: Tensor | None = None, weight: float = 0.5
) -> Tensor:
    """`l_p = weight (l_reg + l_proj)`: end to end, without heat-map targets.

    Args:
        predicted: predicted image points in pixels, `(..., n, 2)`.
        projected: `pi(z | y, K)`, `(..., n, 2)`.
        target: true image points, `(..., n, 2)`.
        valid: items to average over, `(...)`.
        weight: 0.5 as in the published code; 1 gives the paper's plain sum.

    Returns:
        A scalar in squared pixels.
    """
    return weight * (regulariser(predicted, projected, valid) + projection_loss(projected, target, valid))


class MixtureLoss(nn.Module):
    """`l_m = l_h + beta l_proj`.

    The right beta depends on the maps' resolution (`l_h` is a mean over cells) and on the image's size. With
    `beta="auto"` it is the ratio of the two gradients' norms, with respect to the predicted maps, on the first batch
    that is seen with gradients; both terms then pull equally at first. A batch without a valid pose measures nothing,
    and its loss is that of the heat-maps alone. The value is kept in the state dict.

    Args:
        beta: 1e-5, the paper's value; any positive number; or "auto".
    """

    beta: Tensor

    def __init__(self, beta: float | Literal["auto"] = 1e-5) -> None:
        super().__init__()
        if beta != "auto" and not (isinstance(beta, float | int) and beta > 0):
            raise ValueError(f'beta must be a positive number or "auto", got {beta!r}')
        self.register_buffer("beta", torch.tensor(torch.nan if beta == "auto" else float(beta)))
        self._measured = beta != "auto"  # a flag on the host, so that no step waits for the device
        self.register_load_state_dict_post_hook(self._loaded)

    def forward(
        self, heatmaps: Tensor, targets: Tensor, projected: Tensor, points: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            heatmaps: predicted maps, `(B, J, H, W)`.
            targets: target maps, `(B, J, H, W)`.
            projected: `pi(z | y, K)` in pixels, `(B, n, 2)`.
            points: true image points, `(B, n, 2)`.
            valid: items whose pose counts, `(B,)`.

        Returns:
            A scalar.
        """
        first, second = heatmap_loss(heatmaps, targets), projection_loss(projected, points, valid)
        if not self._measured:
            self._measure(first, second, heatmaps)
        # the buffer says it too: where several processes train, that of the first replaces the others' in every step
        beta = torch.where(self.beta.isfinite(), self.beta, 0.0)
        return first + beta.to(first.dtype) * second

    def _measure(self, first: Tensor, second: Tensor, heatmaps: Tensor) -> None:
        """Set beta from the first batch; without gradients there is nothing to balance."""
        if not (torch.is_grad_enabled() and heatmaps.requires_grad):
            raise ValueError('beta="auto" is measured on a training batch: call the loss with gradients enabled first')
        a, b = (torch.autograd.grad(loss, heatmaps, retain_graph=True)[0].norm() for loss in (first, second))
        self.beta.copy_(torch.where(b > 0, a / b, torch.nan))
        self._measured = bool(self.beta.isfinite() and self.beta > 0)

    @staticmethod
    def _loaded(loss: MixtureLoss, _: object) -> None:
        loss._measured = bool(loss.beta.isfinite())


def monte_carlo_pose_loss(
    points_2d: Tensor,
    points_3d: Tensor,
    K: Tensor,
    weights: Tensor,
    R: Tensor,
    t: Tensor,
    result: PnPResult,
    *,
    samples: int = 128,
    degrees: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Negative log-likelihood of the true pose when poses have density proportional to `exp(-cost)` (Chen et al. 2022).

    `F(true pose) + log integral exp(-F(y)) dy`, the integral by importance sampling from a Student t distribution
    around the solved pose with the cost's Hessian as its precision, in tangent coordinates. Unlike a loss on the solved
    pose alone, it punishes points whose solution is ambiguous, and it is what weights can be learned with. One proposal
    at the minimum is used, not several adapted ones as in EPro-PnP: enough for a distribution with one mode.

    Args:
        points_2d: predicted image points in pixels, `(..., n, 2)`.
        points_3d: object points, `(..., n, 3)`.
        K: camera matrices, `(..., 3, 3)`.
        weights: point weights, inverse variances in squared pixels, `(..., n)`.
        R: true rotations, `(..., 3, 3)`.
        t: true translations, `(..., 3)`.
        result: `solve_pnp` of the same points, with any `backward`. The samples lie around its pose: one solved with
            other weights, or robustly, gives the same integral by a rougher estimate.
        samples: number of poses drawn per item.
        degrees: degrees of freedom of the proposal; fewer give heavier tails.
        generator: source of random numbers, on the device of the points.

    Returns:
        Mean over valid items, a scalar; 0 if there is none. Its value lacks the integral's constant unit.

    Raises:
        ValueError: shapes do not fit.
    """
    with torch.autocast(points_2d.device.type, enabled=False):
        inputs = gather_inputs(points_2d, points_3d, K, weights, None)
        if result.valid.shape != inputs.batch:
            raise ValueError(f"result has batch {tuple(result.valid.shape)}, the points {tuple(inputs.batch)}")
        problem, frame = normalise(inputs)
        scale = (frame.total * frame.focal**2)[:, 0]
        valid, solution = result.valid.reshape(-1), result.solution
        true_R = R.to(problem.x).expand(*inputs.batch, 3, 3).reshape(-1, 3, 3)
        true_t = _centred(true_R, t.to(problem.x).expand(*inputs.batch, 3).reshape(-1, 3), frame)
        # the solver's own frame is that of its weights and inliers
        t_solved = _centred(solution.R, solution.pose[:, 3:], frame)
        factor = _precision_root(problem, solution.R, t_solved, scale, valid)
        steps, log_q = _proposal(factor, samples, degrees, generator)
        index = torch.arange(len(valid), device=valid.device).repeat(samples)
        drawn_R = rotated(solution.R[index], steps[..., :3].flatten(0, 1))
        drawn = cost_of(problem.select(index), drawn_R, t_solved[index] + steps[..., 3:].flatten(0, 1))
        log_integral = torch.logsumexp(-scale * drawn.view(samples, -1) - log_q, 0) - math.log(samples)
        loss = scale * cost_of(problem, true_R, true_t) + log_integral
        loss = torch.where(valid & loss.isfinite(), loss, 0.0).sum() / valid.sum().clamp_min(1)
    return loss.to(inputs.dtype)


def _centred(R: Tensor, t: Tensor, frame: Frame) -> Tensor:
    """Translations `(B, 3)` of a frame's normalised problem from those in the caller's units."""
    return (t + (R @ frame.centre[..., None]).squeeze(-1)) / frame.radius


@torch.no_grad()
def _precision_root(problem: Problem, R: Tensor, t: Tensor, scale: Tensor, valid: Tensor) -> Tensor:
    """Cholesky factors `(B, 6, 6)` of the cost's Hessian, or of Gauss-Newton's where that one is indefinite."""
    eye = torch.eye(6, dtype=scale.dtype, device=scale.device)

    def root(exact: bool) -> tuple[Tensor, Tensor]:
        hessian = linearise(problem, R, t, exact).hessian * scale[:, None, None]
        return torch.linalg.cholesky_ex(torch.where(valid[:, None, None], hessian, eye))

    newton, info = root(True)
    return torch.where((info == 0)[:, None, None], newton, root(False)[0])


@torch.no_grad()
def _proposal(factor: Tensor, samples: int, degrees: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Student t steps `(S, B, 6)` in tangent coordinates and their log densities `(S, B)`, up to a constant.

    `factor (B, 6, 6)` is the Cholesky factor of their precision.

    Rotations are taken through the Cayley map `c`, whose volume element relative to the rotation group's is
    `(1 + |c|^2/4)^-2`; dividing by it makes the density one on the group.
    """
    shape = (samples, len(factor), 6)
    normal = torch.randn(shape, generator=generator, dtype=factor.dtype, device=factor.device)
    spread = torch.randn((degrees, *shape[:2]), generator=generator, dtype=factor.dtype, device=factor.device)
    normal = normal / (spread.square().mean(0)).sqrt()[..., None]
    steps = torch.linalg.solve_triangular(factor.mT, normal[..., None], upper=True).squeeze(-1)
    log_q = -(degrees + 6) / 2 * torch.log1p(normal.square().sum(-1) / degrees)
    log_q = log_q + factor.diagonal(dim1=1, dim2=2).log().sum(-1)
    return steps, log_q + 2 * torch.log1p(steps[..., :3].square().sum(-1) / 4)


def reproject(result: PnPResult, points_3d: Tensor, K: Tensor) -> Tensor:
    """Image points of the solved pose, `pi(z | y, K)`, for the losses above; differentiable.

    Args:
        result: a solved batch.
        points_3d: object points, `(..., n, 3)`.
        K: camera matrices, `(..., 3, 3)`.

    Returns:
        Pixels, `(..., n, 2)`.
    """
    return project(points_3d, result.R, result.t, K)
