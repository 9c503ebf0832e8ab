from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from diffpnp_pose import epnp, project, rotation_angle, so3_exp
from diffpnp_pose.pnp import epnp_backends
from torch import Tensor
from torch.autograd import gradcheck


def degrees(R: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(rotation_angle(R @ other.mT))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("n", [5, 6, 9, 20])
def test_exact_data_gives_the_true_pose(make_case: Callable[..., Any], n: int, planar: bool) -> None:
    case = make_case(100, n, planar=planar, seed=n)
    result = epnp(case.x, case.z, case.K, weights=case.c)
    right = degrees(result.R, case.R) < 1e-5
    assert right.double().mean() >= 0.97
    torch.testing.assert_close(result.t[right], case.t[right], rtol=1e-7, atol=1e-7)
    assert result.valid[right].all()


def test_noisy_poses_are_as_good_as_opencvs(make_case: Callable[..., Any]) -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    case = make_case(150, 9, 1.0)
    ours = degrees(epnp(case.x, case.z, case.K).R, case.R)
    theirs = []
    for x, z, K, R in zip(case.x, case.z, case.K, case.R, strict=True):
        _, w, _ = cv2.solvePnP(z.numpy(), x.numpy(), K.numpy(), None, flags=cv2.SOLVEPNP_EPNP)
        theirs.append(degrees(so3_exp(torch.from_numpy(w).ravel()), R))
    assert ours.median() <= 1.1 * torch.stack(theirs).median()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("n", [6, 9, 20])
def test_autograd_derivative_is_that_of_the_map(make_case: Callable[..., Any], n: int, planar: bool) -> None:
    case = make_case(2, n, 0.5, planar=planar, seed=1)
    x, z, c = (v.clone().requires_grad_() for v in (case.x, case.z, case.c))

    def f(x: Tensor, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return epnp(x, case.z if planar else z, case.K, weights=c)[:2]

    # moving points out of their plane would change the number of control points: not differentiated there
    assert gradcheck(f, (x, z, c), eps=1e-6, atol=1e-3, rtol=1e-3, fast_mode=True)


def test_equal_axes_do_not_harm_the_gradient() -> None:
    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3).requires_grad_()
    K = torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], dtype=torch.float64)
    R, t = so3_exp(torch.tensor([0.3, -0.2, 0.5]).double()), torch.tensor([0.1, 0.2, 6.0]).double()
    x = project(cube.detach(), R, t, K) + 0.3 * torch.randn(8, 2, dtype=torch.float64)
    result = epnp(x, cube, K)
    (gradient,) = torch.autograd.grad(result.R.sum(), cube)
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e3


def test_bad_items_are_invalid_and_silent(make_case: Callable[..., Any]) -> None:
    case = make_case(3, 7, 0.5)
    x = case.x.clone()
    x[1, 0, 0] = math.nan
    x.requires_grad_()
    result = epnp(x, case.z, case.K)
    assert result.valid.tolist() == [True, False, True]
    (gradient,) = torch.autograd.grad(result.R.sum() + result.t.sum(), x)
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()
    assert result.t[1].tolist() == [0, 0, 1]


def test_missing_pytorch3d_names_the_extra(make_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    case = make_case(1, 6)
    with pytest.raises(ImportError, match=r"diffpnp-pose\[pytorch3d\]"):
        epnp(case.x, case.z, case.K, backend="pytorch3d")
    with pytest.raises(ValueError, match="backend must be"):
        epnp(case.x, case.z, case.K, backend="opencv")  # pyright: ignore[reportArgumentType]


def test_pytorch3d_rows_become_columns(make_case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for `efficient_pnp` checks what it is given, `y = Proj(x R + T)`, and answers in rows."""
    case = make_case(3, 8)
    calls = []

    def efficient_pnp(x: Tensor, y: Tensor, weights: Tensor) -> Any:
        calls.append(weights)
        R = case.R.mT
        # the offset that explains the normalised points: least squares over T of (x R + T)_xy = y (x R + T)_z
        q = x @ R
        rows = torch.zeros(3, 8, 2, 3, dtype=x.dtype)
        rows[..., 0, 0] = rows[..., 1, 1] = 1
        rows[..., 2] = -y
        right = y * q[..., 2:] - q[..., :2]
        T = torch.linalg.lstsq(rows.flatten(1, 2), right.flatten(1)[..., None]).solution.squeeze(-1)
        solution = ModuleType("solution")
        solution.R, solution.T = R, T  # type: ignore[attr-defined]
        return solution

    ops = ModuleType("pytorch3d.ops")
    ops.efficient_pnp = efficient_pnp  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch3d", ModuleType("pytorch3d"))
    monkeypatch.setitem(sys.modules, "pytorch3d.ops", ops)
    result = epnp(case.x, case.z, case.K, backend="pytorch3d")
    assert len(calls) == 1
    torch.testing.assert_close(result.R, case.R)
    torch.testing.assert_close(result.t, case.t)
    assert (result.cost < 1e-12).all()


def test_real_pytorch3d_finds_the_same_poses(make_case: Callable[..., Any]) -> None:
    pytest.importorskip("pytorch3d")
    case = make_case(10, 9)
    result = epnp(case.x, case.z, case.K, backend="pytorch3d")
    assert degrees(result.R, case.R).median() < 0.1
    assert result.valid.all()


def test_pytorch3d_without_its_extension_says_so_where_it_is_needed() -> None:
    pytest.importorskip("pytorch3d")
    efficient_pnp = epnp_backends.load_efficient_pnp()
    assert efficient_pnp.__module__ == "pytorch3d.ops.perspective_n_points"
    assert not isinstance(sys.modules.get("pytorch3d._C"), epnp_backends._NoExtension)
    stand_in: Any = epnp_backends._NoExtension("pytorch3d._C")
    with pytest.raises(RuntimeError, match="knn_points_idx needs PyTorch3D's compiled extension"):
        stand_in.knn_points_idx(1)


def test_a_solution_that_records_nothing_is_the_same(make_case) -> None:
    case = make_case(batch=40, n=7, noise=1.0, seed=3)
    recorded = epnp(case.x.clone().requires_grad_(), case.z, case.K, weights=case.c)
    fast = epnp(case.x, case.z, case.K, weights=case.c)
    for name in ("R", "t", "cost"):
        assert torch.allclose(getattr(fast, name), getattr(recorded, name), atol=1e-9)
