from __future__ import annotations

import pytest
import torch
from diffpnp_pose import centre_of_mass, decode, gaussian_targets, spatial_softmax
from torch.autograd import gradcheck

MAP, IMAGE = (80, 60), (320, 240)


@pytest.mark.parametrize("grid", ["inclusive", "half_pixel"])
def test_targets_are_normalised_gaussians_written_out(grid: str) -> None:
    point = torch.tensor([[150.0, 70.0]], dtype=torch.float64)
    found = gaussian_targets(point, MAP, IMAGE, grid=grid)  # pyright: ignore[reportArgumentType]
    offset = 0.0 if grid == "inclusive" else 0.5
    want = torch.zeros(60, 80, dtype=torch.float64)
    for j in range(60):
        for i in range(80):
            dx = ((i + offset) / 80 - 150 / 320) / 0.035
            dy = ((j + offset) / 60 - 70 / 240) / 0.035
            want[j, i] = torch.exp(torch.tensor(-(dx**2 + dy**2) / 2, dtype=torch.float64))
    torch.testing.assert_close(found[0], want / want.sum())


@pytest.mark.parametrize("grid", ["inclusive", "half_pixel"])
@pytest.mark.parametrize("mode", ["centre_of_mass", "argmax", "dark"])
def test_decoding_targets_gives_the_keypoints(mode: str, grid: str) -> None:
    points = 60 + 120 * torch.rand(5, 9, 2, dtype=torch.float64)
    maps = gaussian_targets(points, MAP, IMAGE, grid=grid)  # pyright: ignore[reportArgumentType]
    found = decode(maps, IMAGE, mode=mode, grid=grid)  # pyright: ignore[reportArgumentType]
    limit = {"centre_of_mass": 1e-3, "argmax": 2.0 + 1e-6, "dark": 0.01}[mode]  # argmax: half a cell of 4 px
    assert (found - points).abs().max() <= limit


def test_the_published_border_bias_and_its_correction() -> None:
    # cells from the border: the bias of plain targets that the method's specification measured, in pixels
    for cells, bias in ((0, 7.7), (2, 3.7), (4, 1.3), (8, 0.04)):
        point = torch.tensor([[cells * 4.0, 120.0]], dtype=torch.float64)
        plain = centre_of_mass(gaussian_targets(point, MAP, IMAGE), IMAGE)
        assert (plain[0, 0] - point[0, 0]).item() == pytest.approx(bias, abs=0.6 if cells == 0 else 0.35)
        if cells:
            mended = gaussian_targets(point, MAP, IMAGE, border_corrected=True)
            torch.testing.assert_close(centre_of_mass(mended, IMAGE), point, rtol=0, atol=1e-6)
            torch.testing.assert_close(mended.sum((-2, -1)), torch.ones(1, dtype=torch.float64))
    corner = gaussian_targets(torch.tensor([[-5.0, 500.0]]), MAP, IMAGE, border_corrected=True)
    assert corner.isfinite().all()


def test_softmax_and_centre_of_mass() -> None:
    logits = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    maps = spatial_softmax(logits, 0.5)
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 3, dtype=torch.float64))
    want = torch.zeros(2, 3, 2, dtype=torch.float64)
    for j in range(6):
        for i in range(8):
            want += maps[..., j, i, None] * torch.tensor([(i + 0.5) * 10, (j + 0.5) * 10], dtype=torch.float64)
    torch.testing.assert_close(centre_of_mass(maps, (80, 60), "half_pixel"), want)
    assert gradcheck(lambda v: centre_of_mass(spatial_softmax(v), (80, 60)), logits)


def test_dark_stays_on_border_peaks_and_flat_maps() -> None:
    maps = torch.zeros(1, 6, 8)
    maps[0, 0, 7] = 1.0
    assert decode(maps, (80, 60), mode="dark").tolist() == [[70.0, 0.0]]
    assert decode(torch.ones(2, 5, 5), (50, 50), mode="dark").isfinite().all()


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="grid"):
        gaussian_targets(torch.zeros(1, 2), MAP, IMAGE, grid="centre")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="keypoints"):
        gaussian_targets(torch.zeros(1, 3), MAP, IMAGE)
    with pytest.raises(ValueError, match="std"):
        gaussian_targets(torch.zeros(1, 2), MAP, IMAGE, std=0)
    with pytest.raises(ValueError, match="mode"):
        decode(torch.zeros(1, 4, 4), IMAGE, mode="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="grid"):
        decode(torch.zeros(1, 4, 4), IMAGE, mode="argmax", grid="x")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mode", ["centre_of_mass", "argmax", "dark"])
def test_autocast_and_short_types_cost_no_digits(mode: str) -> None:
    points = 60 + 120 * torch.rand(5, 9, 2)
    maps = gaussian_targets(points, MAP, IMAGE)
    expected = decode(maps, IMAGE, mode=mode)  # pyright: ignore[reportArgumentType]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decode(maps, IMAGE, mode=mode)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
    assert decode(maps.bfloat16(), IMAGE, mode=mode).dtype == torch.float32  # pyright: ignore[reportArgumentType]
    assert spatial_softmax(maps.bfloat16()).dtype == torch.float32
    short = centre_of_mass(torch.nn.functional.one_hot(torch.tensor(4799), 4800).view(60, 80).bfloat16(), IMAGE)
    assert short.tolist() == [316.0, 236.0]
