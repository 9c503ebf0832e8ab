from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffpnp_pose import Huber, PnPLayer, SampleConsensus, project_pose, so3_exp, solve_pnp, transform
from diffpnp_pose.geometry import quaternions
from diffpnp_pose.pnp import linearise, moments, problem, refine
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

BACKWARDS: tuple[Literal["unrolled"], Literal["exact"]] = "unrolled", "exact"


def from_rows(x: Tensor, z: Tensor, rows: Tensor, c: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Pose and R as functions of the free rows of K."""
    last = torch.tensor([0.0, 0.0, 1.0], dtype=rows.dtype).expand(len(rows), 1, 3)
    result = solve_pnp(x, z, torch.cat([rows, last], 1), weights=c, **options)
    assert result.valid.all()
    return result.pose, result.R


def leaves(case: Any) -> list[Tensor]:
    return [v.clone().requires_grad_() for v in (case.x, case.z, case.K[:, :2], case.c)]


@pytest.mark.parametrize("angle", [1e-9, 1.0, math.pi - 0.02])
@pytest.mark.parametrize("noise", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("n", [4, 6, 9, 20])
def test_gradient_passes_gradcheck(make_case: Callable[..., Any], n: int, noise: float, angle: float) -> None:
    case = make_case(2, n, noise, angle, seed=n)
    assert gradcheck(from_rows, leaves(case), eps=1e-5, atol=1e-4, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("n", [4, 9])
def test_full_jacobian_of_every_input(make_case: Callable[..., Any], n: int) -> None:
    case = make_case(1, n, 1.0, seed=3)
    assert gradcheck(from_rows, leaves(case), eps=1e-5, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backward", ["exact", "unrolled"])
def test_gradient_under_huber(make_case: Callable[..., Any], backward: str) -> None:
    case = make_case(2, 9, 1.0, seed=5)
    case.x[:, 0] += 25  # an outlier, so that both branches of the loss are used

    def f(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return from_rows(*inputs, robust=Huber(1.5), backward=backward)

    assert gradcheck(f, leaves(case), eps=1e-5, atol=1e-5, rtol=1e-4)


def test_unrolled_has_the_exact_gradient_and_second_derivatives(make_case: Callable[..., Any]) -> None:
    case = make_case(3, 7, 2.0)
    gradients = []
    for backward in ("exact", "unrolled"):
        inputs = leaves(case)
        pose, R = from_rows(*inputs, backward=backward)
        gradients.append(torch.autograd.grad(pose.sin().sum() + R.cos().sum(), inputs))
    for exact, unrolled in zip(*gradients, strict=True):
        torch.testing.assert_close(unrolled, exact, rtol=1e-8, atol=1e-10)
    x = case.x[:1].clone().requires_grad_()
    fixed = (case.z[:1], case.K[:1, :2], case.c[:1])
    assert gradgradcheck(lambda v: from_rows(v, *fixed, backward="unrolled")[0], x, eps=1e-4, atol=1e-5, rtol=1e-3)


def test_implicit_gradient_refuses_second_derivatives(make_case: Callable[..., Any]) -> None:
    inputs = leaves(make_case(1, 6))
    pose, _ = from_rows(*inputs)
    (first,) = torch.autograd.grad(pose.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def numpy_solution(x: np.ndarray, z: np.ndarray, K: np.ndarray, c: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Pose by scipy's least squares on a projection written with scipy's rotations."""

    def residual(y: np.ndarray) -> np.ndarray:
        p = (Rotation.from_rotvec(y[:3]).apply(z) + y[3:]) @ K.T
        return ((p[:, :2] / p[:, 2:] - x) * np.sqrt(c)[:, None]).ravel()

    return least_squares(residual, start, jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15, method="lm").x


@pytest.mark.parametrize("n", [6, 9])
@pytest.mark.parametrize("which", ["x", "z", "K", "c"])
def test_gradient_agrees_with_differences_of_an_independent_solver(
    make_case: Callable[..., Any], n: int, which: str
) -> None:
    case = make_case(2, n, 2.0, angle=1.2, seed=2)
    inputs = dict(zip("xzKc", leaves(case), strict=True))
    pose, _ = from_rows(*inputs.values())
    up = torch.randn_like(pose)
    direction = torch.randn_like(inputs[which]) * inputs[which].detach().abs().clamp_min(0.1)
    (gradient,) = torch.autograd.grad((pose * up).sum(), inputs[which])
    found = (gradient * direction).flatten(1).sum(1)
    h = 1e-4
    for b in range(2):
        ends = []
        for sign in (1, -1):
            values = {k: v.detach().numpy()[b].copy() for k, v in inputs.items()}
            values[which] = values[which] + sign * h * direction[b].numpy()
            values["K"] = np.vstack([values["K"], [0, 0, 1]])
            ends.append(numpy_solution(*values.values(), pose[b].detach().numpy()))
        expected = float((ends[0] - ends[1]) @ up[b].numpy() / (2 * h))
        assert found[b].item() == pytest.approx(expected, rel=1e-3)


def test_gauss_newton_is_exact_at_zero_residual_only(make_case: Callable[..., Any]) -> None:
    for noise in (0.0, 3.0):
        case = make_case(3, 9, noise)
        found = []
        for backward in ("exact", "gauss_newton"):
            inputs = leaves(case)
            pose, _ = from_rows(*inputs, backward=backward)
            found.append(torch.autograd.grad(pose.square().sum(), inputs))
        differences = [(a - b).norm() / (a.norm() + 1e-9) for a, b in zip(*found, strict=True)]
        assert (max(differences) < 1e-8) == (noise == 0.0)


def published_gradient(case: Any, b: int, pose: Tensor, up: Tensor, faster: bool) -> list[Tensor]:
    """Chen et al.'s backward pass for one item, one scalar backward at a time."""
    y = pose.detach().clone().requires_grad_()
    x, z, c = (v[b].detach().clone().requires_grad_() for v in (case.x, case.z, case.c))
    K = case.K[b].detach().clone().requires_grad_()
    image = project_pose(z, y, K)
    coefficients = torch.stack(
        [
            torch.stack([torch.autograd.grad(image[i, k], y, create_graph=True, retain_graph=True)[0] for k in (0, 1)])
            for i in range(len(x))
        ]
    )  # (n, 2, 6)
    if faster:
        coefficients = coefficients.detach()
    depth = transform(z, so3_exp(y[:3]), y[3:])[:, 2]
    residual = depth[:, None] * (x - project_pose(z, y, K))
    f = torch.einsum("i,ikj,ik->j", c, coefficients, residual)
    rows = [torch.autograd.grad(f[j], (y, x, z, K, c), retain_graph=True) for j in range(6)]
    jacobian = torch.stack([row[0] for row in rows])
    v = torch.linalg.solve(jacobian.T, up)
    return [-torch.stack([v[j] * rows[j][k] for j in range(6)]).sum(0) for k in range(1, 5)]


@pytest.mark.parametrize("faster", [False, True])
def test_bpnp_constraint_is_the_published_gradient(make_case: Callable[..., Any], faster: bool) -> None:
    case = make_case(3, 7, 3.0)
    inputs = leaves(case)
    options = {"constraint": "bpnp", "backward": "gauss_newton" if faster else "exact"}
    pose, _ = from_rows(*inputs, **options)
    up = torch.randn_like(pose)
    found = torch.autograd.grad((pose * up).sum(), inputs)
    for b in range(3):
        x_bar, z_bar, K_bar, c_bar = published_gradient(case, b, pose[b], up[b], faster)
        for ours, theirs in zip(found, (x_bar, z_bar, K_bar[:2], c_bar), strict=True):
            torch.testing.assert_close(ours[b], theirs, rtol=1e-7, atol=1e-9)


def test_published_gradient_is_biased_even_without_noise(make_case: Callable[..., Any]) -> None:
    case = make_case(8, 9, 0.0)
    gradients = []
    for constraint in ("reprojection", "bpnp"):
        inputs = leaves(case)
        pose, _ = from_rows(*inputs, constraint=constraint)
        gradients.append(torch.autograd.grad(pose.sum(), inputs[0])[0])
    assert ((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 0.02


@pytest.mark.parametrize("constraint", ["reprojection", "bpnp"])
def test_gradients_of_R_and_pose_are_consistent(make_case: Callable[..., Any], constraint: Any) -> None:
    case = make_case(3, 8, 1.0)
    up = torch.randn(3, 3, 3, dtype=torch.float64)
    x = case.x.clone().requires_grad_()
    result = solve_pnp(x, case.z, case.K, constraint=constraint)
    (direct,) = torch.autograd.grad((result.R * up).sum(), x, retain_graph=True)
    (through_pose,) = torch.autograd.grad((so3_exp(result.pose[:, :3]) * up).sum(), x)
    torch.testing.assert_close(direct, through_pose)


def test_shared_inputs_receive_the_sum_over_items(make_case: Callable[..., Any]) -> None:
    case = make_case(4, 6, 1.0)
    z, K = case.z[0].clone().requires_grad_(), case.K[0].clone().requires_grad_()
    x = torch.stack([case.x[0], case.x[0] + 0.3, case.x[0] - 0.3])
    solve_pnp(x, z, K).pose.sin().sum().backward()
    parts = []
    for item in x:
        zi, Ki = case.z[0].clone().requires_grad_(), case.K[0].clone().requires_grad_()
        parts.append(torch.autograd.grad(solve_pnp(item, zi, Ki).pose.sin().sum(), (zi, Ki)))
    torch.testing.assert_close(z.grad, sum(p[0] for p in parts))
    torch.testing.assert_close(K.grad, sum(p[1] for p in parts))


def test_float32_and_autocast_keep_precision(make_case: Callable[..., Any]) -> None:
    case = make_case(4, 9, 1.0)
    reference = case.x.float().double().requires_grad_()
    want = solve_pnp(reference, case.z.float().double(), case.K).pose
    (want_gradient,) = torch.autograd.grad(want.sum(), reference)
    x = case.x.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = solve_pnp(x, case.z.float(), case.K.float())
        result.pose.sum().backward()
    assert result.pose.dtype == torch.float32
    torch.testing.assert_close(result.pose.double(), want, rtol=1e-6, atol=1e-6)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), want_gradient, rtol=1e-5, atol=1e-8)
    half = solve_pnp(case.x.bfloat16(), case.z.bfloat16(), case.K.bfloat16())
    assert half.pose.dtype == torch.float32


def test_none_and_no_grad_give_no_graph(make_case: Callable[..., Any]) -> None:
    case = make_case(2, 6)
    x = case.x.requires_grad_()
    assert not solve_pnp(x, case.z, case.K, backward="none").pose.requires_grad
    with torch.no_grad():
        assert not solve_pnp(x, case.z, case.K).pose.requires_grad
    assert not solve_pnp(x, case.z, case.K).cost.requires_grad


def test_consensus_gradient_is_that_of_the_inliers(make_case: Callable[..., Any]) -> None:
    case = make_case(2, 12, 0.3)
    case.x[:, 3] += 60
    inputs = leaves(case)
    pose, _ = from_rows(*inputs, robust=SampleConsensus(3.0))
    found = torch.autograd.grad(pose.sum(), inputs)
    keep = torch.arange(12) != 3
    subset = leaves(case)
    pose, _ = from_rows(subset[0][:, keep], subset[1][:, keep], subset[2], subset[3][:, keep])
    for a, b in zip(found, torch.autograd.grad(pose.sum(), subset), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_layer_trains_its_points(make_case: Callable[..., Any]) -> None:
    case = make_case(4, 8)
    layer = PnPLayer(case.z[0], case.K[0])
    target = solve_pnp(case.x[:1], case.z[0], case.K[0]).R
    x = (case.x[:1] + 2 * torch.randn(1, 8, 2)).requires_grad_()
    optimizer = torch.optim.Adam([x], 0.1)
    losses = []
    for _ in range(40):
        loss = (layer(x).R - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert "points=8" in repr(layer)
    assert set(layer.state_dict()) == {"points_3d", "K"}
    with pytest.raises(ValueError, match="points_3d was given neither"):
        PnPLayer(K=case.K[0])(case.x)


def test_what_is_kept_from_inference_mode_serves_training(make_case: Callable[..., Any]) -> None:
    for kept in (
        moments._picked,
        moments._metric,
        moments._assembly,
        refine._constants,
        quaternions.outer_product_matrix,
        problem._stand_in,
    ):
        kept.cache_clear()
    case = make_case(3, 6, 1.0)
    with torch.inference_mode():
        solve_pnp(case.x, case.z, case.K)
    gradients = []
    for backward in BACKWARDS:
        x = case.x.clone().requires_grad_()
        solve_pnp(x, case.z, case.K, backward=backward).pose.sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("delta", [None, 0.02])
def test_a_linearisation_is_what_autograd_says(make_case: Callable[..., Any], delta: float | None) -> None:
    case = make_case(4, 7, 3.0)
    K = case.K.clone()
    K[..., 0, 1], K[..., 1, 1] = 12.0, 1.3 * K[..., 1, 1]  # a skewed camera with two focal lengths
    posed, frame = problem.normalise(problem.gather_inputs(case.x, case.z, K, case.c, None))
    if delta is not None:
        posed.delta = torch.full_like(frame.focal, delta)
    R, t = case.R, (case.t + (case.R @ frame.centre[..., None]).squeeze(-1)) / frame.radius

    def cost(d: Tensor) -> Tensor:
        return linearise.cost_of(posed, so3_exp(d[:, :3]) @ R, t + d[:, 3:]).sum()

    zero = torch.zeros(4, 6, dtype=torch.float64)
    local = linearise.linearise(posed, R, t)
    hessian = torch.autograd.functional.hessian(cost, zero)
    torch.testing.assert_close(local.cost.sum(), cost(zero))
    torch.testing.assert_close(local.gradient, torch.func.grad(cost)(zero))
    torch.testing.assert_close(local.hessian, torch.stack([hessian[b, :, b] for b in range(4)]))
    if delta is None:

        def residuals(d: Tensor) -> Tensor:
            _, _, u, _ = linearise.camera_points(posed, so3_exp(d[:, :3]) @ R, t + d[:, 3:])
            return ((u - posed.x) * posed.c[:, None].sqrt()).flatten(1)

        J = torch.autograd.functional.jacobian(residuals, zero)
        J = torch.stack([J[b, :, b] for b in range(4)])
        torch.testing.assert_close(linearise.linearise(posed, R, t, exact=False).hessian, J.mT @ J)
