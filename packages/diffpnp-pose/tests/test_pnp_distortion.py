"""Lens distortion, beside OpenCV's and by numerical derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffpnp_pose import Distortion, PnPLayer, SampleConsensus, epnp, project, so3_exp, solve_pnp, undistort_points
from torch import Tensor
from torch.autograd import gradcheck

F = torch.float64
K = torch.tensor([[520.0, 0, 330], [0, 515, 245], [0, 0, 1]], dtype=F)
ALL = [-0.28, 0.09, 0.0012, -0.0007, -0.013, 0.05, 0.02, -0.004, 0.0011, -0.0004, 0.0008, 0.0003, 0.02, -0.013]
LENSES = [Distortion(torch.tensor(ALL[:count], dtype=F)) for count in (4, 5, 8, 12, 14)]
LENSES += [Distortion(torch.tensor([0.05, -0.012, 0.004, -0.001], dtype=F), "fisheye")]
NAMES = ["4", "5", "8", "12", "14", "fisheye"]
lenses = pytest.mark.parametrize("lens", LENSES, ids=NAMES)


def scene(count: int = 5, n: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    w, t = 0.5 * torch.randn(count, 3, dtype=F), torch.tensor([0.1, -0.1, 4.0], dtype=F).expand(count, 3)
    return 0.7 * torch.randn(n, 3, dtype=F), w, t


def opencv(z: Tensor, w: Tensor, t: Tensor, lens: Distortion) -> Tensor:
    import cv2

    points, k = z.numpy()[:, None], lens.coefficients.numpy()
    if lens.model == "fisheye":
        seen, _ = cv2.fisheye.projectPoints(points, w.numpy(), t.numpy(), K.numpy(), k)
    else:
        seen, _ = cv2.projectPoints(points, w.numpy(), t.numpy(), K.numpy(), k)
    return torch.from_numpy(seen).reshape(-1, 2)


@lenses
def test_projections_are_opencvs(lens: Distortion) -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    z, w, t = scene()
    seen = project(z, so3_exp(w), t, K, lens)
    for item in range(len(w)):
        torch.testing.assert_close(seen[item], opencv(z, w[item], t[item], lens), rtol=0, atol=1e-9)


@lenses
def test_undistorting_is_the_inverse_and_agrees_with_opencv(lens: Distortion) -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    z, w, t = scene()
    seen, ideal = project(z, so3_exp(w), t, K, lens), project(z, so3_exp(w), t, K)
    torch.testing.assert_close(undistort_points(seen, K, lens), ideal, rtol=0, atol=1e-9)
    k, pixels = lens.coefficients.numpy(), seen[0].numpy()[:, None]
    criteria: Any = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
    if lens.model == "fisheye":
        theirs = cv2.fisheye.undistortPoints(pixels, K.numpy(), k, P=K.numpy(), criteria=criteria)
    else:
        theirs = cv2.undistortPoints(pixels, K.numpy(), k, P=K.numpy(), criteria=criteria)
    torch.testing.assert_close(undistort_points(seen[0], K, lens), torch.from_numpy(theirs)[:, 0], rtol=0, atol=1e-7)


@lenses
def test_derivatives_are_those_of_the_map(lens: Distortion) -> None:
    z, w, t = scene(2, 4)
    seen = project(z, so3_exp(w), t, K, lens).requires_grad_()
    k, camera = lens.coefficients.clone().requires_grad_(), K.clone().requires_grad_()

    def there(z: Tensor, camera: Tensor, k: Tensor) -> Tensor:
        return project(z, so3_exp(w), t, camera, Distortion(k, lens.model))

    def back(x: Tensor, k: Tensor) -> Tensor:
        return undistort_points(x, K, Distortion(k, lens.model))

    assert gradcheck(there, (z.requires_grad_(), camera, k), atol=1e-4, rtol=1e-4)
    assert gradcheck(back, (seen, k), atol=1e-4, rtol=1e-4)


@lenses
def test_solving_undoes_the_lens_and_passes_gradients_to_it(lens: Distortion) -> None:
    z, w, t = scene()
    seen = project(z, so3_exp(w), t, K, lens)
    for robust in (None, SampleConsensus(2.0)):
        result = solve_pnp(seen, z, K, distortion=lens, robust=robust)
        assert result.valid.all()
        torch.testing.assert_close(result.R, so3_exp(w), rtol=0, atol=1e-8)
        torch.testing.assert_close(result.t, t, rtol=0, atol=1e-8)
    torch.testing.assert_close(PnPLayer(z, K, distortion=lens)(seen).t, t, rtol=0, atol=1e-8)
    torch.testing.assert_close(epnp(seen, z, K, distortion=lens).t, t, rtol=0, atol=1e-6)
    noisy = (seen[0] + 0.3 * torch.randn(12, 2, dtype=F)).requires_grad_()
    k, camera = lens.coefficients.clone().requires_grad_(), K.clone().requires_grad_()

    def pose(x: Tensor, focal: Tensor, k: Tensor) -> Tensor:
        camera = torch.cat([focal, K.new_tensor([[0, 0, 1]])])
        return solve_pnp(x, z, camera, distortion=Distortion(k, lens.model)).pose

    focal = camera.detach()[:2].clone().requires_grad_()
    assert gradcheck(pose, (noisy, focal, k), eps=1e-5, atol=1e-4, rtol=1e-3)


def test_a_lens_of_each_item(make_case: Any) -> None:
    z, w, t = scene(3)
    k = torch.stack([f * LENSES[1].coefficients for f in (0.0, 0.5, 1.0)])
    seen = project(z, so3_exp(w), t, K, Distortion(k))
    result = solve_pnp(seen, z, K, distortion=Distortion(k))
    torch.testing.assert_close(result.t, t, rtol=0, atol=1e-8)
    torch.testing.assert_close(seen[0], project(z, so3_exp(w[0]), t[0], K))


def test_pixels_that_the_lens_never_shows_are_nan_and_make_an_item_invalid() -> None:
    barrel = Distortion(torch.tensor([-0.3, 0.0, 0.0, 0.0], dtype=F))  # rays end at a radius of 0.7
    pixels = torch.tensor([[330.0, 245], [400, 300], [1500, 245]], dtype=F)
    found = undistort_points(pixels, K, barrel)
    assert found[:2].isfinite().all()
    assert found[2].isnan().all()
    z, w, t = scene(2)
    seen = project(z, so3_exp(w), t, K, barrel)
    seen[1, 0] = torch.tensor([1500.0, 245])
    assert solve_pnp(seen, z, K, distortion=barrel).valid.tolist() == [True, False]


@pytest.mark.parametrize(
    ("coefficients", "model", "message"),
    [
        (torch.zeros(6), "opencv", "opencv needs 4 or 5 or 8 or 12 or 14 coefficients, got"),
        (torch.zeros(5), "fisheye", "fisheye needs 4 coefficients"),
        (torch.tensor(1.0), "opencv", "coefficients, got"),
        (torch.zeros(4), "brown", "must be .opencv. or .fisheye., got 'brown'"),
    ],
)
def test_other_lenses_are_refused(coefficients: Tensor, model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distortion(coefficients, model)
    with pytest.raises(TypeError, match="must be a torch tensor, got ndarray"):
        Distortion(np.zeros(5))  # pyright: ignore[reportArgumentType]
