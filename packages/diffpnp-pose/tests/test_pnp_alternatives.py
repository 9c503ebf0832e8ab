"""The second minimum, beside OpenCV's two poses of a plane and what can be said of exact points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffpnp_pose import project, project_pose, rotation_angle, so3_exp, solve_pnp
from torch import Tensor

F = torch.float64
K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=F)
SQUARE = torch.tensor([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=F) / 10


def seen(z: Tensor, count: int, distance: float, noise: float) -> Tensor:
    w = torch.randn(count, 3, dtype=F) * 0.5
    x = project(z, so3_exp(w), torch.tensor([0.1, 0.0, distance], dtype=F), K)
    return x + noise * torch.randn(count, len(z), 2, dtype=F)


def test_both_minima_of_a_plane_are_those_that_opencv_leads_to() -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    x = seen(SQUARE, 40, 2.0, 0.3)
    result = solve_pnp(x, SQUARE, K)
    second = result.alternatives
    assert second.pose.shape == (40, 6)
    compared = 0
    for item in range(40):
        pixels = x[item].numpy()[:, None].copy()
        flag = cv2.SOLVEPNP_IPPE
        _, w, t, _ = cv2.solvePnPGeneric(SQUARE.numpy(), pixels, K.numpy(), None, flags=flag)
        starts = torch.from_numpy(np.stack([np.concatenate([a, b]).ravel() for a, b in zip(w, t, strict=True)]))
        refined = solve_pnp(x[item].expand(2, 4, 2), SQUARE, K, init=starts)
        apart = rotation_angle(refined.R[0] @ refined.R[1].mT) > 0.05
        if refined.valid.all() and apart:
            compared += 1
            costs = refined.cost.sort().values
            torch.testing.assert_close(result.cost[item], costs[0], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(second.cost[item], costs[1], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(second.ratio[item], costs[0] / costs[1], rtol=1e-6, atol=1e-9)
    assert compared > 10


def test_the_second_pose_has_its_cost_and_is_a_minimum() -> None:
    x = seen(SQUARE, 50, 3.0, 0.5)
    result = solve_pnp(x, SQUARE, K)
    second = result.alternatives
    assert second.valid.double().mean() > 0.5
    cost = (project_pose(SQUARE, second.pose, K) - x).square().sum((-2, -1)) / 2
    torch.testing.assert_close(cost[second.valid], second.cost[second.valid], rtol=1e-7, atol=1e-9)
    again = solve_pnp(x, SQUARE, K, init=second.pose)
    torch.testing.assert_close(again.pose[second.valid], second.pose[second.valid], rtol=1e-6, atol=1e-7)
    assert ((second.ratio <= 1 + 1e-9) | ~second.valid).all()
    assert (rotation_angle(second.R @ result.R.mT)[second.valid] > 1e-3).all()


def test_far_squares_are_more_ambiguous_than_near_ones() -> None:
    ratios = [solve_pnp(seen(SQUARE, 60, d, 0.3), SQUARE, K).alternatives.ratio.median() for d in (0.5, 4.0)]
    assert 5 * ratios[0] < ratios[1]


def test_solid_objects_of_many_points_are_hardly_ambiguous(make_case: Callable[..., Any]) -> None:
    case = make_case(30, 12, 0.5)
    second = solve_pnp(case.x, case.z, case.K).alternatives
    assert second.ratio.max() < 0.1
    assert torch.equal(second.valid, second.cost.isfinite())


def test_invalid_items_have_none(make_case: Callable[..., Any]) -> None:
    case = make_case(3, 6, 0.5)
    x = case.x.clone()
    x[1, 0, 0] = torch.nan
    second = solve_pnp(x, case.z, case.K).alternatives
    assert not second.valid[1]
    assert second.ratio[1] == 0
    assert second.cost[1].isinf()
    assert second.pose.isfinite().all()
