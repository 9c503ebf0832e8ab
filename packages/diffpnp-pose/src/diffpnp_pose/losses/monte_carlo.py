"""The Monte Carlo loss of a pose's distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpnp_pose.pnp.linearise import Problem, cost_of, linearise
from diffpnp_pose.pnp.problem import Frame, gather_inputs, normalise
from diffpnp_pose.pnp.refine import rotated
from diffpnp_pose.pnp.result import PnPResult


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
