from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffpnp_pose import Huber, SampleConsensus, project, project_pose, rotation_angle, so3_exp, so3_log, solve_pnp
from diffpnp_pose.pnp.problem import _clean_frame, _frame, gather_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

TELLO = [
    [0, 0, 0], [0.0467, 0.0199, 0.0360], [-0.0477, 0.0203, 0.0355], [0.0476, -0.0311, 0.0349],
    [-0.0470, -0.0311, 0.0360], [0.0470, 0.0186, -0.0359], [-0.0489, 0.0199, -0.0370], [0.0476, -0.0311, -0.0371],
    [-0.0464, -0.0311, -0.0377],
]  # fmt: skip
FIELDS = ("pose", "R", "cost", "covariance", "iterations", "valid")


def degrees(R: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(rotation_angle(R @ other.mT))


def cost(x: Tensor, z: Tensor, K: Tensor, pose: Tensor) -> Tensor:
    return (project_pose(z, pose, K) - x).square().sum((-2, -1)) / 2


@pytest.mark.parametrize("init", ["auto", "weak_perspective", "sqpnp", "epnp"])
@pytest.mark.parametrize("n", [5, 6, 9, 20])
def test_exact_data_gives_the_true_pose(make_case: Callable[..., Any], n: int, init: Any) -> None:
    case = make_case(20, n, seed=11)
    result = solve_pnp(case.x, case.z, case.K, weights=case.c, init=init)
    right = degrees(result.R, case.R) < 1e-6
    assert right.double().mean() >= (0.95 if init in ("epnp", "weak_perspective") else 1.0)
    torch.testing.assert_close(result.t[right], case.t[right], rtol=1e-9, atol=1e-9)
    assert result.valid[right].all()
    assert (result.cost[right] < 1e-15).all()
    torch.testing.assert_close(so3_exp(result.pose[:, :3]), result.R)


@pytest.mark.parametrize("n", [6, 9])
def test_every_one_of_many_exact_problems_is_solved(make_case: Callable[..., Any], n: int) -> None:
    case = make_case(1500, n, seed=n)
    t = case.t * torch.linspace(1, 8, 1500, dtype=torch.float64)[:, None]  # near to far
    result = solve_pnp(project(case.z, case.R, t, case.K), case.z, case.K)
    assert result.valid.all()
    assert degrees(result.R, case.R).max() < 1e-5


@pytest.mark.parametrize("n", [4, 9])
def test_planar_objects_reach_the_global_minimum(make_case: Callable[..., Any], n: int) -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    case = make_case(60, n, 0.5, planar=True, seed=4)
    result = solve_pnp(case.x, case.z, case.K)
    assert result.valid.all()
    truth = solve_pnp(case.x, case.z, case.K, init=torch.cat([torch.zeros(60, 3), case.t], -1).double())
    assert (result.cost <= truth.cost * (1 + 1e-9)).double().mean() >= 0.98
    better = []
    for b in range(60):
        x, z, K = (v[b].numpy() for v in (case.x, case.z, case.K))
        ok, w, t = cv2.solvePnP(z, x, K, None, flags=cv2.SOLVEPNP_SQPNP)
        pose = torch.from_numpy(np.concatenate([w, t]).ravel()) if ok else torch.full((6,), torch.nan)
        theirs = cost(case.x[b], case.z[b], case.K[b], pose)
        better.append(bool(result.cost[b] <= theirs + 1e-9) or not bool(theirs.isfinite()))
    assert np.mean(better) >= 0.98


def cv2_best(x: Tensor, z: Tensor, K: Tensor) -> Tensor:
    """Lowest cost of OpenCV's ITERATIVE and SQPNP poses, in float64."""
    import cv2

    best = torch.tensor(torch.inf, dtype=torch.float64)
    for flag in (cv2.SOLVEPNP_ITERATIVE, cv2.SOLVEPNP_SQPNP):
        try:
            ok, w, t = cv2.solvePnP(z.numpy(), x.numpy(), K.numpy(), None, flags=flag)
        except cv2.error:
            continue
        pose = torch.from_numpy(np.concatenate([w, t]).ravel())
        camera = z @ so3_exp(pose[:3]).mT + pose[3:]
        if ok and bool((camera[:, 2] > 0).all()):
            best = torch.minimum(best, cost(x, z, K, pose).nan_to_num(nan=torch.inf))
    return best


def test_cost_is_no_more_than_the_best_of_opencv(make_case: Callable[..., Any]) -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    wins = []
    for n, noise in ((4, 0.5), (5, 1.0), (6, 0.5), (6, 2.0), (7, 1.0), (9, 0.5), (9, 2.0), (20, 1.0)):
        case = make_case(250, n, noise, seed=100 + n)
        result = solve_pnp(case.x, case.z, case.K)
        rivals = torch.stack([cv2_best(*item) for item in zip(case.x, case.z, case.K, strict=True)])
        ours = cost(case.x, case.z, case.K, result.pose)
        torch.testing.assert_close(result.cost, ours)
        wins.append(ours <= rivals + 1e-9)
    total = torch.cat(wins)
    assert len(total) == 2000
    assert total.double().mean() >= 0.995


def test_one_bad_item_leaves_the_others_bit_identical(make_case: Callable[..., Any]) -> None:
    for n, planar in ((9, False), (4, False), (6, True)):
        case = make_case(24, n, 1.0, planar=planar)
        x = case.x.clone().requires_grad_()
        clean = solve_pnp(x, case.z, case.K, weights=case.c)
        (clean_gradient,) = torch.autograd.grad(clean.pose.sum(), x)
        others = torch.arange(24) != 7
        for bad in (math.nan, math.inf):
            broken = case.x.clone()
            broken[7, 2, 1] = bad
            broken.requires_grad_()
            result = solve_pnp(broken, case.z, case.K, weights=case.c)
            (gradient,) = torch.autograd.grad(result.pose.sum(), broken)
            for name in FIELDS:
                assert torch.equal(getattr(result, name)[others], getattr(clean, name)[others]), name
            assert torch.equal(gradient[others], clean_gradient[others])
            assert not result.valid[7]
            assert (gradient[7] == 0).all()
            assert result.pose[7].tolist() == [0, 0, 0, 0, 0, 1]
            assert result.cost[7] == math.inf


def test_an_item_solves_alike_in_any_batch(make_case: Callable[..., Any]) -> None:
    case = make_case(30, 6, 2.0)
    together = solve_pnp(case.x, case.z, case.K)
    order = torch.randperm(30)
    shuffled = solve_pnp(case.x[order], case.z[order], case.K[order])
    torch.testing.assert_close(shuffled.pose, together.pose[order], rtol=1e-9, atol=1e-10)
    for b in (0, 7, 29):
        alone = solve_pnp(case.x[b], case.z[b], case.K[b])
        torch.testing.assert_close(alone.pose, together.pose[b], rtol=1e-9, atol=1e-10)
        assert alone.pose.shape == (6,)
        assert alone.valid.shape == ()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 12))
def test_order_of_points_and_scale_of_weights_do_not_matter(make_case: Callable[..., Any], seed: int, n: int) -> None:
    case = make_case(3, n, 1.0, seed=seed)
    first = solve_pnp(case.x, case.z, case.K, weights=case.c)
    order = torch.randperm(n)
    second = solve_pnp(case.x[:, order], case.z[:, order], case.K, weights=1e-6 * case.c[:, order])
    torch.testing.assert_close(second.pose, first.pose, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(second.cost, 1e-6 * first.cost)


@settings(max_examples=10, deadline=None)
@given(unit=st.sampled_from([1e-3, 1.0, 1e3]), zoom=st.sampled_from([0.01, 1.0, 20.0]))
def test_units_of_object_and_image_do_not_matter(make_case: Callable[..., Any], unit: float, zoom: float) -> None:
    case = make_case(5, 8, 1.0)
    plain = solve_pnp(case.x, case.z, case.K)
    K = case.K.clone()
    K[:, :2] *= zoom
    scaled = solve_pnp(case.x * zoom, case.z * unit, K)
    torch.testing.assert_close(scaled.R, plain.R)
    torch.testing.assert_close(scaled.t, plain.t * unit)
    assert scaled.valid.all()


def test_mask_and_zero_weight_equal_leaving_points_out(make_case: Callable[..., Any]) -> None:
    case = make_case(4, 10, 1.0)
    keep = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1, 1, 0], dtype=torch.bool)
    want = solve_pnp(case.x[:, keep], case.z[:, keep], case.K, weights=case.c[:, keep])
    x = torch.where(keep[:, None], case.x, torch.nan).requires_grad_()
    z = torch.where(keep[:, None], case.z, torch.inf)
    masked = solve_pnp(x, z, case.K, weights=case.c, mask=keep)
    zeroed = solve_pnp(case.x, case.z, case.K, weights=case.c * keep)
    for found in (masked, zeroed):
        torch.testing.assert_close(found.pose, want.pose, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found.covariance, want.covariance)
    (gradient,) = torch.autograd.grad(masked.pose.sum(), x)
    assert (gradient[:, ~keep] == 0).all()
    assert (gradient[:, keep] != 0).all()


def spoilt(case: Any, kind: str) -> dict[str, Tensor]:
    """Inputs in which item 1 of 3 is bad in one way."""
    values = {"points_2d": case.x.clone(), "points_3d": case.z.clone(), "K": case.K.clone(), "weights": case.c.clone()}
    if kind == "collinear":
        values["points_3d"][1] = torch.linspace(-1, 1, 8).double()[:, None] * torch.tensor([1.0, 2.0, 0.5])
        values["points_2d"][1] = project(values["points_3d"][1], case.R[1], case.t[1], case.K[1])
    elif kind == "same object point":
        values["points_3d"][1] = 0.3
    elif kind == "same image point":
        values["points_2d"][1] = 100.0
    elif kind == "few":
        values["weights"][1, 3:] = 0
    elif kind == "negative weight":
        values["weights"][1, 0] = -1
    else:
        values[kind].view(3, -1)[1, 0] = torch.nan
    return values


@pytest.mark.parametrize(
    "kind",
    ["points_2d", "points_3d", "K", "weights", "few", "collinear", "same object point", "same image point",
     "negative weight"],
)  # fmt: skip
@pytest.mark.parametrize("robust", [None, Huber(2.0), SampleConsensus(3.0)])
def test_bad_items_are_marked_and_have_no_gradient(make_case: Callable[..., Any], kind: str, robust: Any) -> None:
    case = make_case(3, 8, 0.2)
    values = {k: v.requires_grad_() for k, v in spoilt(case, kind).items()}
    result = solve_pnp(**values, robust=robust)
    assert result.valid.tolist() == [True, False, True]
    assert result.pose.isfinite().all()
    assert result.covariance[1].isinf().all()
    gradients = torch.autograd.grad((result.pose * 3).sum() + result.R.sum(), list(values.values()))
    for gradient in gradients:
        assert (gradient[1] == 0).all()
        assert gradient.isfinite().all()
        assert (gradient[0] != 0).any()


def test_a_pose_behind_the_camera_is_never_valid(make_case: Callable[..., Any]) -> None:
    case = make_case(20, 8)
    # the camera stands inside the object, so that the only fitting pose has points behind it
    t = case.t * 0.02 - (case.R @ case.z.mean(1)[..., None]).squeeze(-1)
    x = project(case.z, case.R, t, case.K)
    for init in ("auto", so3_pose(case.R, t)):
        result = solve_pnp(x, case.z, case.K, init=init)
        depth = (case.z @ result.R.mT + result.t[:, None])[..., 2]
        assert ((depth > 0).all(-1) | ~result.valid).all()
        assert result.pose.isfinite().all()


def so3_pose(R: Tensor, t: Tensor) -> Tensor:
    return torch.cat([so3_log(R), t], -1)


def test_empty_and_multidimensional_batches(make_case: Callable[..., Any]) -> None:
    case = make_case(6, 7, 0.5)
    flat = solve_pnp(case.x, case.z, case.K)
    grid = solve_pnp(case.x.view(2, 3, 7, 2), case.z.view(2, 3, 7, 3), case.K.view(2, 3, 3, 3))
    assert grid.R.shape == (2, 3, 3, 3)
    assert grid.t.shape == (2, 3, 3)
    assert grid.covariance.shape == (2, 3, 6, 6)
    torch.testing.assert_close(grid.pose.view(6, 6), flat.pose, rtol=1e-9, atol=1e-10)
    for init in ("auto", "weak_perspective", "sqpnp", "epnp"):
        assert solve_pnp(case.x[:0], case.z[0], case.K[0], init=init).pose.shape == (0, 6)
    for robust in (Huber(2.0), SampleConsensus(3.0)):
        assert solve_pnp(case.x[:0], case.z[0], case.K[0], robust=robust).covariance.shape == (0, 6, 6)
    crossed = solve_pnp(case.x[:2, None], case.z[:2, None], case.K[:3])
    assert crossed.pose.shape == (2, 3, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points_2d": torch.rand(2, 6, 3)}, r"points_2d must have shape \(\.\.\., n, 2\), got \(2, 6, 3\)"),
        ({"points_3d": torch.rand(6, 2)}, r"points_3d must have shape"),
        ({"points_3d": torch.rand(5, 3)}, "different numbers of points"),
        ({"points_3d": torch.rand(3, 6, 3)}, "do not broadcast"),
        ({"K": torch.eye(2)}, r"K must have shape \(\.\.\., 3, 3\)"),
        ({"K": torch.zeros(3, 3)}, "singular"),
        ({"K": torch.tensor([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]])}, "singular"),
        ({"K": torch.eye(3) * 2}, "third row"),
        ({"points_2d": torch.ones(2, 6, 2, dtype=torch.long)}, "floating-point"),
        ({"weights": torch.ones(5)}, r"weights must have shape \(\.\.\., 6\)"),
        ({"mask": torch.ones(6)}, "boolean"),
        ({"init": "dlt"}, "init must be"),
        ({"robust": "huber"}, "robust must be"),
        ({"backward": "autograd"}, "backward must be"),
        ({"constraint": "depth"}, "constraint must be"),
        ({"constraint": "bpnp", "backward": "unrolled"}, "bpnp"),
        ({"init": torch.zeros(5)}, "init"),
    ],
)
def test_wrong_arguments_raise_errors_that_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"points_2d": torch.rand(2, 6, 2), "points_3d": torch.rand(6, 3), "K": torch.eye(3)}
    with pytest.raises(ValueError, match=message):
        solve_pnp(**(arguments | change))


def test_three_points_and_bad_options_raise() -> None:
    with pytest.raises(ValueError, match="at least 4 points"):
        solve_pnp(torch.rand(3, 2), torch.rand(3, 3), torch.eye(3))
    with pytest.raises(ValueError, match="delta"):
        Huber(0.0)
    with pytest.raises(ValueError, match="threshold"):
        SampleConsensus(-1.0)
    with pytest.raises(ValueError, match="sample"):
        SampleConsensus(sample=2)


def test_covariance_is_that_of_many_noisy_solutions(make_case: Callable[..., Any]) -> None:
    sigma, trials = 0.2, 4000
    case = make_case(1, 9, seed=8)
    noisy = case.x + sigma * torch.randn(trials, 9, 2, dtype=torch.float64) / case.c.sqrt()[..., None]
    result = solve_pnp(noisy, case.z, case.K, weights=case.c / sigma**2)
    predicted = solve_pnp(case.x, case.z, case.K, weights=case.c / sigma**2).covariance[0]
    scale = predicted.diagonal().rsqrt()
    observed = torch.cov(result.pose.mT) * scale[:, None] * scale
    torch.testing.assert_close(observed, predicted * scale[:, None] * scale, rtol=0, atol=0.1)


def test_drone_geometry_never_does_worse_than_from_the_truth() -> None:
    z = torch.tensor(TELLO, dtype=torch.float64)
    K = torch.tensor([[-252.6, 0, 160], [0, 252.6, 120], [0, 0, 1]], dtype=torch.float64)
    w = torch.randn(300, 3, dtype=torch.float64)
    t = torch.tensor([0.0, 0.0, 1.0]) + torch.rand(300, 3, dtype=torch.float64) * torch.tensor([0.4, 0.3, 1.5])
    x = project(z, so3_exp(w), t, K) + 0.5 * torch.randn(300, 9, 2, dtype=torch.float64)
    found = solve_pnp(x, z, K)
    truth = solve_pnp(x, z, K, init=torch.cat([w, t], -1))
    assert found.valid.all()
    assert (found.cost <= truth.cost * (1 + 1e-9)).all()
    # OpenCV's ITERATIVE flips a third of these
    assert (degrees(found.R, so3_exp(w)) > 15).double().mean() <= (degrees(truth.R, so3_exp(w)) > 15).double().mean()


def test_outliers(make_case: Callable[..., Any]) -> None:
    case = make_case(40, 16, 0.3, seed=21)
    case.x[:, :4] += 80 * torch.randn(40, 4, 2, dtype=torch.float64)
    plain = degrees(solve_pnp(case.x, case.z, case.K).R, case.R)
    consensus = solve_pnp(case.x, case.z, case.K, robust=SampleConsensus(2.0))
    huber = degrees(solve_pnp(case.x, case.z, case.K, robust=Huber(1.0)).R, case.R)
    assert consensus.valid.all()
    assert degrees(consensus.R, case.R).max() < 2
    assert huber.median() < 0.2 * plain.median()
    again = solve_pnp(case.x, case.z, case.K, robust=SampleConsensus(2.0))
    assert torch.equal(again.pose, consensus.pose)


def test_huber_minimises_hubers_function(make_case: Callable[..., Any]) -> None:
    from scipy.optimize import minimize

    case = make_case(1, 10, 1.0)
    case.x[0, 0] += 20
    result = solve_pnp(case.x, case.z, case.K, weights=case.c, robust=Huber(1.5))

    def objective(y: np.ndarray) -> float:
        r = (project_pose(case.z[0], torch.from_numpy(y), case.K[0]) - case.x[0]).norm(dim=-1)
        rho = torch.nn.functional.huber_loss(r, torch.zeros_like(r), reduction="none", delta=1.5)
        return float((case.c[0] * rho).sum())

    pose = result.pose[0].numpy()
    assert result.cost.item() == pytest.approx(objective(pose))
    best = minimize(objective, pose + 1e-3, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    assert objective(pose) <= best.fun * (1 + 1e-9)


def test_the_short_way_to_the_frame_gives_the_same_bits(make_case: Callable[..., Any]) -> None:
    case = make_case(5, 9, 0.5)
    inputs = gather_inputs(case.x, case.z, case.K, case.c, None)
    short, whole = _clean_frame(inputs), _frame(inputs)
    assert short is not None
    for name in whole.__dataclass_fields__:
        assert torch.equal(getattr(short, name), getattr(whole, name)), name
    for name, value in (
        ("x", torch.nan),
        ("z", torch.inf),
        ("K", torch.nan),
        ("c", 0.0),
        ("c", -1.0),
        ("c", torch.nan),
    ):
        spoilt_inputs = gather_inputs(*(v.clone() for v in (case.x, case.z, case.K, case.c)), None)
        getattr(spoilt_inputs, name).view(-1)[3] = value
        assert _clean_frame(spoilt_inputs) is None
    same_place = gather_inputs(case.x, torch.zeros_like(case.z), case.K, case.c, None)
    assert _clean_frame(same_place) is None
