from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffpnp_pose import (
    Huber,
    MixtureLoss,
    SampleConsensus,
    heatmap_loss,
    monte_carlo_pose_loss,
    pose_loss,
    projection_loss,
    regulariser,
    reproject,
    so3_exp,
    solve_pnp,
    spatial_softmax,
)


def test_losses_are_their_formulas() -> None:
    a, b = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    differences = [abs(float(u - v)) for u, v in zip(a.ravel(), b.ravel(), strict=True)]
    assert heatmap_loss(a, b).item() == pytest.approx(sum(differences) / 120)
    x, p, t = torch.rand(2, 3, 2), torch.rand(2, 3, 2), torch.rand(2, 3, 2)
    proj = sum(float(v) ** 2 for v in (p - t).ravel()) / 12
    reg = sum(float(v) ** 2 for v in (x - p).ravel()) / 12
    assert projection_loss(p, t).item() == pytest.approx(proj)
    assert regulariser(x, p).item() == pytest.approx(reg)
    assert pose_loss(x, p, t).item() == pytest.approx(0.5 * (reg + proj))
    assert pose_loss(x, p, t, weight=1.0).item() == pytest.approx(reg + proj)
    assert MixtureLoss()(a, b, p, t).item() == pytest.approx(heatmap_loss(a, b).item() + 1e-5 * proj)


def test_invalid_items_are_left_out() -> None:
    p, t = torch.rand(3, 4, 2), torch.rand(3, 4, 2)
    broken = p.clone()
    broken[1] = math.inf
    broken.requires_grad_()
    valid = torch.tensor([True, False, True])
    loss = projection_loss(broken, t, valid)
    assert loss.item() == pytest.approx(projection_loss(p[[0, 2]], t[[0, 2]]).item())
    assert projection_loss(p, t, torch.zeros(3, dtype=torch.bool)) == 0
    (gradient,) = torch.autograd.grad(loss, broken)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2]] != 0).all()


def test_automatic_beta_balances_the_gradients(tmp_path: Any) -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target, points = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 2)
    maps = spatial_softmax(logits)
    projected = torch.stack([maps.sum((-2, -1)) * 3, maps.square().sum((-2, -1))], -1)
    loss = MixtureLoss("auto")
    with pytest.raises(ValueError, match="training batch"), torch.no_grad():
        loss(maps, target, projected, points)
    loss(maps, target, projected, points).backward(retain_graph=True)
    first = torch.autograd.grad(heatmap_loss(maps, target), maps, retain_graph=True)[0].norm()
    second = torch.autograd.grad(projection_loss(projected, points), maps, retain_graph=True)[0].norm()
    assert loss.beta.item() == pytest.approx((first / second).item())
    again = MixtureLoss("auto")
    again.load_state_dict(loss.state_dict())
    assert again(maps.detach(), target, projected, points) == loss(maps, target, projected, points)
    with pytest.raises(ValueError, match="beta"):
        MixtureLoss(-1.0)


def test_monte_carlo_loss_is_the_negative_log_density(make_case: Callable[..., Any]) -> None:
    """With small noise the density is normal: the integral is `exp(-F_min) (2 pi)^3 / sqrt(det H)`."""
    case = make_case(3, 9, 0.1)
    weights = torch.full((3, 9), 100.0, dtype=torch.float64)
    result = solve_pnp(case.x, case.z, case.K, weights=weights)
    solution = result.solution
    found = torch.stack(
        [
            monte_carlo_pose_loss(
                case.x[b], case.z[b], case.K[b], weights[b], case.R[b], case.t[b],
                solve_pnp(case.x[b], case.z[b], case.K[b], weights=weights[b]), samples=20000,
            )
            for b in range(3)
        ]
    )  # fmt: skip
    at_truth = (weights * (reproject_true(case) - case.x).square().sum(-1)).sum(-1) / 2
    scale = (solution.frame.total * solution.frame.focal**2)[:, 0]
    log_det = torch.linalg.slogdet(solution.hessian * scale[:, None, None])[1]
    # the proposal's normalising constant, left out of the loss, is that of a t distribution with 4 degrees of freedom
    constant = math.lgamma(5.0) - math.lgamma(2.0) - 3 * math.log(4 * math.pi)
    expected = at_truth - result.cost + 3 * math.log(2 * math.pi) - log_det / 2
    torch.testing.assert_close(found - constant, expected, rtol=0, atol=0.05)


def reproject_true(case: Any) -> torch.Tensor:
    from diffpnp_pose import project

    return project(case.z, case.R, case.t, case.K)


def test_monte_carlo_loss_teaches_weights(make_case: Callable[..., Any]) -> None:
    case = make_case(16, 10, 0.5, seed=3)
    case.x[:, 0] += 15 * torch.randn(16, 2, dtype=torch.float64)
    logits = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.2)
    for _ in range(60):
        weights = logits.exp()
        result = solve_pnp(case.x, case.z, case.K, weights=weights, backward="none")
        loss = monte_carlo_pose_loss(case.x, case.z, case.K, weights, case.R, case.t, result, samples=64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits[0] < logits[1:].min() - 2  # the noisy point
    assert 0.5 < logits[1:].detach().exp().mean().item() * 0.25 < 2  # inverse variance of the others, 1 / 0.5^2


def test_reproject_carries_the_gradient(make_case: Callable[..., Any]) -> None:
    case = make_case(2, 8, 1.0)
    x = case.x.clone().requires_grad_()
    result = solve_pnp(x, case.z, case.K)
    projected = reproject(result, case.z, case.K)
    torch.testing.assert_close((projected - x).square().sum((-2, -1)) / 2, result.cost)
    (gradient,) = torch.autograd.grad(regulariser(x, projected), x)
    # at the minimum, moving the pose does not change the cost: only the points' own residual is left
    torch.testing.assert_close(gradient, (x - projected).detach() * 2 / x.numel(), rtol=1e-6, atol=1e-9)
    assert so3_exp(result.pose[:, :3]).requires_grad


@pytest.mark.parametrize("options", [{}, {"robust": Huber(1.0)}, {"robust": SampleConsensus(2.0)}], ids=str)
def test_monte_carlo_loss_does_not_depend_on_how_the_pose_was_solved(
    options: dict[str, Any], make_case: Callable[..., Any]
) -> None:
    case = make_case(16, 9, 0.5)
    inputs = case.x, case.z, case.K, 4 * case.c, case.R, case.t
    own = solve_pnp(case.x, case.z, case.K, weights=4 * case.c)
    other = solve_pnp(case.x, case.z, case.K, **options)
    assert not torch.allclose(own.solution.frame.centre, other.solution.frame.centre, rtol=0, atol=1e-3)
    expected, found = (monte_carlo_pose_loss(*inputs, result, samples=4096) for result in (own, other))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    with pytest.raises(ValueError, match="batch"):
        monte_carlo_pose_loss(*inputs, solve_pnp(case.x[:3], case.z[:3], case.K[:3]))


def test_automatic_beta_waits_for_a_valid_pose() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target, points = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 2)
    maps = spatial_softmax(logits)
    projected = torch.stack([maps.sum((-2, -1)) * 3, maps.square().sum((-2, -1))], -1)
    loss, none = MixtureLoss("auto"), torch.zeros(2, dtype=torch.bool)
    for _ in range(2):
        assert torch.equal(loss(maps, target, projected, points, none), heatmap_loss(maps, target))
    value = loss(maps, target, projected, points, ~none)
    assert 0 < float(loss.beta) < 1e6
    torch.testing.assert_close(value, heatmap_loss(maps, target) + loss.beta * projection_loss(projected, points))
    loss.beta.fill_(torch.nan)  # another process, which has measured nothing yet, wrote over it
    assert torch.equal(loss(maps, target, projected, points), heatmap_loss(maps, target))
