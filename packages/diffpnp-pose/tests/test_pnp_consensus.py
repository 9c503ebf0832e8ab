"""Sample consensus: the minimal problem, outliers, wide angles, what counts as enough, and memory."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffpnp_pose import SampleConsensus, project, rotation_angle, so3_exp, solve_pnp
from diffpnp_pose.pnp.consensus.evidence import subsets
from diffpnp_pose.pnp.consensus.samples import _ranks
from diffpnp_pose.pnp.starts.p3p import three_point_poses
from torch import Tensor

F = torch.float64
K = torch.tensor([[572.0, 0, 325], [0, 574, 242], [0, 0, 1]], dtype=F)


def degrees(R: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(rotation_angle(R @ other.mT))


def in_view(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles and poses with all corners in front of the camera, any rotation, wide angles included."""
    z, w = torch.randn(count, 3, 3, dtype=F), torch.randn(count, 3, dtype=F)
    t = torch.randn(count, 3, dtype=F) + torch.tensor([0.0, 0, 4], dtype=F)
    R = so3_exp(w * 2)
    front = ((z @ R.mT + t[:, None])[..., 2] > 0.1).all(1)
    return z[front], R[front], t[front]


def solutions(p: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Poses `(N, 4, ...)` of camera points and object points, `(N, 3, 3)` with points as rows."""
    rays = (p[..., :2] / p[..., 2:]).permute(2, 1, 0)
    R, t = three_point_poses(rays.contiguous(), z.permute(2, 1, 0).contiguous())
    return R.permute(3, 2, 0, 1), t.permute(2, 1, 0)


def test_one_of_the_poses_of_three_points_is_the_true_one() -> None:
    z, R, t = in_view(3000)
    assert len(z) > 2000
    p = z @ R.mT + t[:, None]
    found, shift = solutions(p, z)
    error = (found - R[:, None]).abs().amax((-2, -1)).nan_to_num(nan=9)
    assert error.amin(1).max() < 1e-6
    assert error.amin(1).median() < 1e-13
    best = error.argmin(1)
    torch.testing.assert_close(shift[torch.arange(len(z)), best], t, rtol=1e-6, atol=1e-6)


def test_every_pose_of_three_points_puts_them_on_their_rays() -> None:
    z, R, t = in_view(3000)
    p = z @ R.mT + t[:, None]
    found, shift = solutions(p, z)
    real = found.isfinite().flatten(2).all(-1)
    assert (real.sum(1) >= 1).all()
    assert (real.sum(1) == 4).any()
    seen = (z[:, None] @ found.mT + shift[:, :, None])[real]
    rays = (p / p[..., 2:])[:, None].expand(-1, 4, -1, -1)[real]
    torch.testing.assert_close(seen / seen[..., 2:], rays, rtol=1e-5, atol=1e-5)
    assert (seen[..., 2] > 0).all()
    eye = torch.eye(3, dtype=F)
    torch.testing.assert_close(found[real] @ found[real].mT, eye.expand_as(found[real]), rtol=1e-4, atol=1e-4)


def test_poses_of_three_points_are_opencvs() -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    z, R, t = in_view(200)
    p = z @ R.mT + t[:, None]
    found, _ = solutions(p, z)
    for item in range(len(z)):
        rays = (p[item, :, :2] / p[item, :, 2:]).numpy()
        _, rotations, _ = cv2.solveP3P(z[item].numpy(), rays, torch.eye(3).double().numpy(), None, cv2.SOLVEPNP_P3P)
        for w in rotations:
            theirs = so3_exp(torch.from_numpy(w).ravel())
            assert (found[item] - theirs).abs().amax((-2, -1)).nan_to_num(nan=9).min() < 1e-3


def test_symmetric_triangles_have_their_pose() -> None:
    z = torch.tensor([[1.0, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]], dtype=F)
    for w in ([0.0, 0, 0], [0, 0, 0.3], [0.2, 0, 0], [0, 0.5, 0]):
        R = so3_exp(torch.tensor(w, dtype=F))
        p = z @ R.mT + torch.tensor([0, 0, 5.0], dtype=F)
        found, _ = solutions(p[None], z[None])
        assert (found[0] - R).abs().amax((-2, -1)).nan_to_num(nan=9).min() < 1e-7


def test_samples_are_distinct_present_points_each_as_likely() -> None:
    c = torch.ones(2, 6, dtype=F)
    c[1, 4:] = 0
    ranks = _ranks(c, 3, range(3000))
    assert ranks.shape == (2, 3000, 3)
    for item, count in ((0, 6), (1, 4)):
        assert ranks[item].max() == count - 1
        assert all(len(set(row)) == 3 for row in ranks[item].tolist())
        often = ranks[item].flatten().bincount() / (3 * 3000)
        torch.testing.assert_close(often, torch.full((count,), 1 / count), rtol=0.06, atol=0)
    expected = [math.comb(n, 3) for n in range(8)]
    assert subsets(torch.arange(8.0, dtype=F), 3).tolist() == expected


def scene(batch: int, n: int, outliers: float, noise: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    z = (torch.rand(batch, n, 3, dtype=F) - 0.5) * 0.16
    w, t = torch.randn(batch, 3, dtype=F), torch.tensor([0.05, 0.0, 1.0], dtype=F).expand(batch, 3)
    x = project(z, so3_exp(w), t, K) + noise * torch.randn(batch, n, 2, dtype=F)
    wrong = torch.zeros(batch, n, dtype=torch.bool)
    wrong[:, : round(outliers * n)] = True
    box = x.mean(1, keepdim=True) + 120 * (torch.rand(batch, n, 2, dtype=F) - 0.5)
    return torch.where(wrong[..., None], box, x), z, so3_exp(w), t, wrong


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("n", [50, 200])
def test_outliers_are_found_and_counted(n: int, outliers: float) -> None:
    x, z, R, t, wrong = scene(40, n, outliers)
    result = solve_pnp(x, z, K, robust=SampleConsensus(3.5))
    assert result.valid.all()
    assert degrees(result.R, R).max() < 5
    assert ((result.t - t).norm(dim=-1) < 0.05).all()
    assert result.inliers.shape == (40, n)
    torch.testing.assert_close(result.inlier_count, result.inliers.sum(-1))
    assert (result.inliers & ~wrong).sum() >= 0.97 * (~wrong).sum()
    residual = (project(z, result.R, result.t, K) - x).norm(dim=-1)
    assert ((residual < 3.5) | ~result.inliers).double().mean() > 0.995


def test_points_without_a_pose_are_not_valid() -> None:
    x, z, *_ = scene(100, 40, 1.0)
    assert solve_pnp(x, z, K, robust=SampleConsensus(3.0)).valid.double().mean() <= 0.02
    asked = solve_pnp(x, z, K, robust=SampleConsensus(3.0, least_inliers=1))
    assert asked.valid.double().mean() > 0.5  # whoever asks for fewer gets the minimum over them


def test_least_inliers_is_kept() -> None:
    x, z, *_ = scene(10, 30, 0.5)
    few = solve_pnp(x, z, K, robust=SampleConsensus(3.5, least_inliers=5))
    many = solve_pnp(x, z, K, robust=SampleConsensus(3.5, least_inliers=25))
    assert few.valid.all()
    assert not many.valid.any()
    assert torch.equal(few.inliers, many.inliers)


@pytest.mark.parametrize("options", [{}, {"hypotheses": 1024}, {"sample": 4}, {"sample": 5}], ids=str)
@pytest.mark.parametrize("reach", [0, 1, 2])
def test_wide_angles_are_not_lost(options: dict[str, int], reach: int) -> None:
    """Exact rays up to 71 degrees from the axis, and random ones up to 80."""
    if reach == 0:
        z = torch.tensor([[10, 0, 0], [4, 3, 0], [4, 0, 3], [3, 4, 0], [3, 0, 4]], dtype=F)
        R = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=F)[None]
        t = -R @ torch.tensor([1.0, 0, 0], dtype=F)
    else:
        depth = torch.rand(20, 4 + reach, 1, dtype=F) * 5 + 0.5
        angle = torch.rand(20, 4 + reach, 1, dtype=F) * math.radians(80)
        around = torch.rand(20, 4 + reach, 1, dtype=F) * 2 * math.pi
        p = torch.cat([angle.tan() * around.cos(), angle.tan() * around.sin(), torch.ones_like(angle)], -1) * depth
        R, t = so3_exp(torch.randn(20, 3, dtype=F)), torch.randn(20, 3, dtype=F)
        z = (p - t[:, None]) @ R
    eye = torch.eye(3, dtype=F)
    x = project(z, R, t, eye)
    result = solve_pnp(x, z, eye, robust=SampleConsensus(0.01, **options))
    assert result.valid.all()
    assert result.inliers.all()
    torch.testing.assert_close(result.R, R, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.t, t, rtol=1e-6, atol=1e-6)


def test_an_item_is_alike_in_any_company_and_any_order() -> None:
    easy, hard = scene(5, 20, 0.1), scene(5, 20, 0.6)
    x, z = torch.cat([easy[0], hard[0]]), torch.cat([easy[1], hard[1]])
    options = SampleConsensus(3.0)
    together = solve_pnp(x, z, K, robust=options)
    for item in (0, 4, 5, 9):
        alone = solve_pnp(x[item], z[item], K, robust=options)
        torch.testing.assert_close(alone.pose, together.pose[item], rtol=1e-7, atol=1e-8)
        assert torch.equal(alone.inliers, together.inliers[item])
        assert alone.inliers.shape == (20,)
        assert alone.inlier_count.shape == ()


def test_absent_points_are_never_sampled(make_case: Callable[..., Any]) -> None:
    case = make_case(6, 12, 0.2)
    mask = torch.ones(6, 12, dtype=torch.bool)
    mask[:, :5] = False
    x = torch.where(mask[..., None], case.x, torch.nan)
    result = solve_pnp(x, case.z, case.K, mask=mask, robust=SampleConsensus(2.0))
    assert result.valid.all()
    assert torch.equal(result.inliers, mask)


def test_inliers_without_consensus_are_the_points_used(make_case: Callable[..., Any]) -> None:
    case = make_case(2, 8, 0.2)
    weights = case.c.clone()
    weights[0, 2] = 0
    x = case.x.clone()
    x[1, 0, 0] = torch.nan
    result = solve_pnp(x, case.z, case.K, weights=weights)
    assert result.inlier_count.tolist() == [7, 0]
    assert not result.inliers[0, 2]


@pytest.mark.parametrize("change", [{"confidence": 1.0}, {"confidence": 0.0}, {"least_inliers": -1}, {"hypotheses": 0}])
def test_options_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        SampleConsensus(**change)


_PEAK = """
import resource, torch
from diffpnp_pose import SampleConsensus, project, so3_exp, solve_pnp
torch.set_num_threads(1)
K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]).double()
def go(n):
    z, w = torch.randn(8, n, 3).double() * 0.3, torch.randn(8, 3).double()
    x = project(z, so3_exp(w), torch.tensor([0, 0, 6.0]).double(), K) + torch.randn(8, n, 2).double()
    return solve_pnp(x, z, K, robust=SampleConsensus()).valid.all()
go(100)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert go(8000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024)
"""


def test_memory_does_not_grow_with_the_samples() -> None:
    """2.4 MiB of points; every point copied for every pose would take more than a gibibyte."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120


@pytest.mark.parametrize("copies", list(itertools.islice(itertools.product([0, 1, 2], repeat=2), 0, 9, 4)))
def test_agreeing_duplicates_are_no_consensus(copies: tuple[int, int]) -> None:
    """Three points, however often they are given, leave up to four poses."""
    z = torch.randn(3, 3, dtype=F)[[0, 1, 2, *copies]]
    x = project(z, so3_exp(torch.randn(30, 3, dtype=F)), torch.tensor([0.2, -0.1, 6.0], dtype=F), K)
    for robust in (None, SampleConsensus(3.0)):
        assert not solve_pnp(x, z, K, robust=robust).valid.any()
