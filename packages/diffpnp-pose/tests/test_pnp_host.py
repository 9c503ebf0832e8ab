"""Refinement in NumPy equals that in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffpnp_pose import Huber, SampleConsensus, solve_pnp
from diffpnp_pose.pnp import host
from diffpnp_pose.pnp.linearise import linearise
from diffpnp_pose.pnp.refine import refine


@pytest.mark.parametrize("options", [{}, {"robust": Huber(1.0)}, {"robust": SampleConsensus(3.0)}, {"init": "sqpnp"}])
@pytest.mark.parametrize("n", [4, 9, 40])
def test_poses_are_those_of_torch(
    n: int, options: dict[str, Any], make_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(30, n, 0.5, planar=n == 9)
    found = solve_pnp(case.x, case.z, case.K, weights=case.c, **options)
    monkeypatch.setattr(host, "numpy", lambda: None)
    plain = solve_pnp(case.x, case.z, case.K, weights=case.c, **options)
    assert torch.equal(found.valid, plain.valid)
    for name in ("pose", "cost", "covariance"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), rtol=1e-7, atol=1e-8)


def test_as_many_steps_as_in_torch(make_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(30, 9, 0.5)
    found = solve_pnp(case.x, case.z, case.K, weights=case.c)
    problem, start = found.solution.problem, found.solution.t + 0.05
    on_host = refine(problem, found.solution.R, start, 40)
    monkeypatch.setattr(host, "numpy", lambda: None)
    in_torch = refine(problem, found.solution.R, start, 40)
    assert int((on_host.iterations - in_torch.iterations).abs().max()) <= 1
    assert on_host.iterations.min() > 1
    assert in_torch.converged.all()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("delta", [None, 1.0])
def test_the_local_model_is_that_of_torch(exact: bool, delta: float | None, make_case: Callable[..., Any]) -> None:
    case = make_case(5, 12, 1.0)
    problem = solve_pnp(case.x, case.z, case.K, weights=case.c, robust=delta and Huber(delta)).solution.problem
    R, t = case.R, torch.tensor([0.1, 0.2, 4.0], dtype=torch.float64).expand(5, 3).clone()
    t[4, 2] = -1.0  # behind the camera
    local = linearise(problem, R, t, exact)
    arrays = host.HostProblem(
        *(part.numpy() for part in (problem.x, problem.z, problem.affine, problem.c)),
        None if problem.delta is None else problem.delta.numpy(),
    )
    cost, hessian, gradient = (torch.from_numpy(value) for value in arrays.linearise(R.numpy(), t.numpy(), exact))
    torch.testing.assert_close(cost, local.cost, rtol=1e-13, atol=0)
    torch.testing.assert_close(hessian, local.hessian, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(gradient, local.gradient, rtol=1e-11, atol=1e-13)
