"""Inputs of every kind: half precision, arrays, far points, duplicates, planes of four; and the transforms of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffpnp_pose import Huber, PnPLayer, SampleConsensus, epnp, project, rotation_angle, so3_exp, solve_pnp
from diffpnp_pose.pnp import candidates
from torch import Tensor

F = torch.float64


def camera(focal: float = 500.0) -> Tensor:
    return torch.tensor([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], dtype=F)


def images(z: Tensor, count: int, distance: float = 6.0) -> tuple[Tensor, Tensor]:
    """Exact image points of random poses, and the rotations."""
    R = so3_exp(torch.randn(count, 3, dtype=F))
    return project(z, R, torch.tensor([0.2, -0.1, distance], dtype=F), camera()), R


def degrees(R: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(rotation_angle(R.double() @ other.mT))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("solve", [solve_pnp, epnp])
def test_a_camera_of_few_bits_is_the_camera(solve: Callable[..., Any], dtype: torch.dtype) -> None:
    z = torch.randn(9, 3, dtype=F)
    K = torch.tensor([[512.0, 0, 320], [0, 512, 240], [0, 0, 1]], dtype=F)  # exact in all three types
    x = project(z, so3_exp(torch.randn(4, 3, dtype=F)), torch.tensor([0, 0, 6.0], dtype=F), K)
    torch.testing.assert_close(solve(x, z, K.to(dtype)).R, solve(x, z, K).R)


def test_a_layer_of_half_precision_solves() -> None:
    z = torch.randn(9, 3)
    x, R = images(z.double(), 4)
    result = PnPLayer(z, camera().float()).half()(x.half())
    assert result.valid.all()
    assert result.R.dtype == torch.float32
    assert degrees(result.R, R).max() < 1
    points = x.half().requires_grad_()
    PnPLayer(z, camera().float())(points).pose.sum().backward()
    assert points.grad is not None
    assert points.grad.dtype == torch.float16
    assert points.grad.isfinite().all()


@pytest.mark.parametrize("name", ["points_2d", "points_3d", "K", "weights", "mask"])
@pytest.mark.parametrize("solve", [solve_pnp, epnp])
def test_arrays_and_lists_are_refused_by_name(solve: Callable[..., Any], name: str) -> None:
    held = {"points_2d": torch.rand(2, 6, 2), "points_3d": torch.rand(6, 3), "K": torch.eye(3)}
    held |= {"weights": torch.ones(6), "mask": torch.ones(6, dtype=torch.bool)}
    for wrong in (held[name].numpy(), held[name].tolist()):
        with pytest.raises(TypeError, match=rf"{name} must be a torch tensor, got (ndarray|list)"):
            solve(**(held | {name: wrong}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": np.zeros(6)}, "init must be a pose tensor .* got ndarray"),
        ({"init": None}, "got NoneType"),
        ({"K": torch.eye(3, device="meta")}, "points_2d is on cpu, K on meta"),
        ({"points_3d": torch.zeros(6, 3, dtype=torch.complex64)}, "floating-point numbers of 16 bits or more"),
        ({"points_3d": torch.zeros(6, 3).to(torch.float8_e4m3fn)}, "floating-point numbers of 16 bits or more"),
        ({"weights": torch.ones(6, dtype=torch.complex64)}, "weights must hold real numbers"),
        ({"K": torch.eye(3).half() * 2}, "third row"),
        ({"K": torch.zeros(3, 3).half()}, "singular"),
    ],
)
def test_other_inputs_are_one_sentence(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"points_2d": torch.rand(2, 6, 2), "points_3d": torch.rand(6, 3), "K": torch.eye(3)}
    with pytest.raises(ValueError, match=message):
        solve_pnp(**(arguments | change))


def test_weights_of_whole_numbers_are_numbers(make_case: Callable[..., Any]) -> None:
    case = make_case(2, 7, 0.5)
    whole = torch.tensor([1, 2, 0, 3, 1, 1, 4])
    expected = solve_pnp(case.x, case.z, case.K, weights=whole.double())
    torch.testing.assert_close(solve_pnp(case.x, case.z, case.K, weights=whole).pose, expected.pose)


@pytest.mark.parametrize(
    ("offset", "dtype"),
    [(offset, torch.float64) for offset in (0.0, 1e3, 1e6, 1e8)]
    + [(offset, torch.float32) for offset in (0.0, 1e3, 1e5, 1e6, 1e8)]
    + [(offset, torch.float16) for offset in (0.0, 10.0, 1e3)],
)
@pytest.mark.parametrize("solve", [solve_pnp, epnp])
def test_points_far_from_the_origin_are_right_or_invalid(
    solve: Callable[..., Any], offset: float, dtype: torch.dtype
) -> None:
    z = torch.randn(20, 3, dtype=F)
    x, R = images(z, 6)
    moved = z + torch.tensor([offset, -offset, offset / 2], dtype=F)
    points = x.to(dtype).float() if dtype == torch.float16 else x.to(dtype)
    result = solve(points, moved.to(dtype), camera())
    error = degrees(result.R, R)
    assert (error[result.valid] < 0.5).all()
    assert bool(result.valid.all()) == (torch.finfo(dtype).eps * offset < 1e-3)
    if result.valid.all():
        seen = project(moved.to(dtype).double(), result.R.double(), result.t.double(), camera())
        assert (seen - x).norm(dim=-1).max() < (5.0 if dtype == torch.float16 else 0.5)


@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize("picked", [[0, 0, 1, 2], [0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2, 2, 2, 2]], ids=str)
@pytest.mark.parametrize("solve", [solve_pnp, epnp])
def test_duplicate_points_are_not_points(solve: Callable[..., Any], picked: list[int], near: float) -> None:
    z = torch.randn(3, 3, dtype=F)[picked] + near * torch.randn(len(picked), 3, dtype=F)
    x, _ = images(z, 40)
    x.requires_grad_()
    result = solve(x, z, camera())
    assert not result.valid.any()
    (gradient,) = torch.autograd.grad(result.R.sum(), x)
    assert (gradient == 0).all()


def test_four_distinct_points_among_duplicates_are_enough() -> None:
    z = torch.randn(4, 3, dtype=F)[[0, 0, 1, 2, 2, 3]]
    x, R = images(z, 40)
    result = solve_pnp(x, z, camera())
    assert result.valid.all()
    assert (degrees(result.R, R) < 1e-4).double().mean() > 0.9  # four points may have a second exact pose


def test_absent_points_do_not_count_as_distinct() -> None:
    z = torch.randn(5, 3, dtype=F)[[0, 0, 1, 2, 3]]
    x, _ = images(z, 10)
    weights = torch.ones(5, dtype=F)
    weights[4] = 0
    assert not solve_pnp(x, z, camera(), weights=weights).valid.any()


QUADRUPLES = [
    [[1, 0.1, 0], [0.2, 1.1, 0], [-0.5, 0.6, 0], [0, 0, 0]],
    [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]],
    [[-1, -0.5, 0], [1, -0.5, 0], [1.5, 0.5, 0], [-0.5, 0.5, 0]],
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.2, 0]],
]


@pytest.mark.parametrize("init", ["auto", "sqpnp"])
@pytest.mark.parametrize("quadruple", QUADRUPLES, ids=["scalene", "square", "parallelogram", "inside"])
def test_exact_images_of_four_points_in_a_plane_are_met(quadruple: list[list[float]], init: Any) -> None:
    z = torch.tensor(quadruple, dtype=F) @ so3_exp(torch.tensor([0.4, -0.3, 0.8], dtype=F)).mT + 0.3
    w = torch.randn(1500, 3, dtype=F)
    w = w / w.norm(dim=-1, keepdim=True) * math.pi * torch.rand(1500, 1, dtype=F)
    t = torch.rand(1500, 3, dtype=F) * torch.tensor([2.0, 2, 5]) + torch.tensor([-1.0, -1, 3])
    x = project(z, so3_exp(w), t, camera(600.0))
    front = ((z @ so3_exp(w).mT + t[:, None])[..., 2] > 0.1).all(1)
    result = solve_pnp(x[front], z, camera(600.0), init=init)
    assert result.valid.double().mean() > 0.999
    assert result.cost[result.valid].max() < 1e-10


@pytest.fixture
def problem(make_case: Callable[..., Any]) -> Any:
    return make_case(4, 8, 0.5)


@pytest.mark.parametrize("options", [{}, {"robust": Huber(1.0)}, {"robust": SampleConsensus(3.0)}, {"init": "sqpnp"}])
def test_vmap_is_a_loop(problem: Any, options: dict[str, Any]) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        result = solve_pnp(x, problem.z[0], problem.K[0], **options)
        return result.pose, result.R, result.cost, result.covariance, result.valid

    x = project(problem.z[0], problem.R, problem.t, problem.K[0]) + 0.3 * torch.randn(4, 8, 2, dtype=F)
    found = torch.func.vmap(f)(x)
    for k, value in enumerate(found):
        torch.testing.assert_close(value, torch.stack([f(one)[k] for one in x]), rtol=1e-7, atol=1e-9)


def test_vmap_over_points_cameras_and_weights(problem: Any) -> None:
    def f(x: Tensor, z: Tensor, K: Tensor, c: Tensor) -> Tensor:
        return solve_pnp(x, z, K, weights=c).pose

    inputs = (problem.x, problem.z, problem.K, problem.c)
    expected = solve_pnp(*inputs[:3], weights=problem.c).pose
    torch.testing.assert_close(torch.func.vmap(f)(*inputs), expected, rtol=1e-7, atol=1e-9)
    moved = [value.movedim(0, -1) for value in inputs]
    torch.testing.assert_close(torch.func.vmap(f, in_dims=-1)(*moved), expected, rtol=1e-7, atol=1e-9)
    layer = PnPLayer(problem.z[0], problem.K[0])
    expected = layer(problem.x).pose
    torch.testing.assert_close(torch.func.vmap(lambda x: layer(x).pose)(problem.x), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, in forward mode
def test_jacobians_are_those_of_autograd(problem: Any) -> None:
    inputs = (problem.x[0], problem.z[0], problem.K[0], problem.c[0])

    def f(x: Tensor, z: Tensor, K: Tensor, c: Tensor) -> Tensor:
        return solve_pnp(x, z, K, weights=c).pose

    expected = torch.autograd.functional.jacobian(f, inputs)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for found, wanted in zip(transform(f, argnums=(0, 1, 2, 3))(*inputs), expected, strict=True):
            wanted, found = (v[..., :2, :] if v.shape[-2:] == (3, 3) else v for v in (wanted, found))
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_gradients_of_each_sample_and_second_derivatives(problem: Any) -> None:
    def f(x: Tensor) -> Tensor:
        return solve_pnp(x, problem.z[0], problem.K[0]).t.square().sum()

    x = project(problem.z[0], problem.R, problem.t, problem.K[0]) + 0.3 * torch.randn(4, 8, 2, dtype=F)
    each = torch.func.vmap(torch.func.grad(f))(x)
    leaf = x.clone().requires_grad_()
    solve_pnp(leaf, problem.z[0], problem.K[0]).t.square().sum().backward()
    torch.testing.assert_close(each, leaf.grad, rtol=1e-6, atol=1e-9)
    step = 1e-4 * torch.randn(8, 2, dtype=F)
    change = torch.func.grad(f)(x[0] + step) - torch.func.grad(f)(x[0] - step)
    second = torch.func.hessian(f)(x[0]).flatten(2).flatten(0, 1) @ step.flatten()
    torch.testing.assert_close(second.view(8, 2), change / 2, rtol=1e-4, atol=1e-9)


def test_published_gradients_under_a_transform_are_refused_in_one_sentence(problem: Any) -> None:
    for options in ({"constraint": "bpnp"}, {"backward": "gauss_newton"}):

        def f(x: Tensor, options: Any = options) -> Tensor:
            return solve_pnp(x, problem.z[0], problem.K[0], **options).pose

        with pytest.raises(ValueError, match=r"torch\.func and torch\.export take backward"):
            torch.func.jacrev(f)(problem.x[0])


class Solver(torch.nn.Module):
    def __init__(self, z: Tensor, K: Tensor) -> None:
        super().__init__()
        self.layer = PnPLayer(z, K, init="weak_perspective", backward="none")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result = self.layer(x)
        return result.pose, result.valid


def test_an_exported_layer_solves_other_inputs_and_batches(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_DEVICE_STEPS", 6)  # enough here, and the graph stays small
    module = Solver(problem.z[0], problem.K[0])
    x = project(problem.z[0], problem.R, problem.t, problem.K[0]) + 0.3 * torch.randn(4, 8, 2, dtype=F)
    batch, fixed = torch.export.Dim("batch", min=2, max=64), torch.export.Dim.STATIC
    program = torch.export.export(module, (x,), dynamic_shapes=((batch, fixed, fixed),))
    for points in (x, x.flip(0)[:3] + 0.1):
        pose, valid = program.module()(points)
        torch.testing.assert_close(pose, solve_pnp(points, problem.z[0], problem.K[0]).pose, rtol=1e-7, atol=1e-9)
        assert valid.all()
    torch.testing.assert_close(
        module(x)[0], solve_pnp(x, problem.z[0], problem.K[0]).pose
    )  # nothing traced stays behind
