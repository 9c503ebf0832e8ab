"""Augmentation of photos against torchvision's, and what scales with the image."""

from __future__ import annotations

import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.networks import SmallCNN
from pseudolabel_da.reading import photos
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference


def pictures(size: int = 12, count: int = 6, channels: int = 3) -> Tensor:
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (size, size), mode="bilinear")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (photos.brightness, reference.adjust_brightness),
        (photos.contrast, reference.adjust_contrast),
        (photos.saturation, reference.adjust_saturation),
        (photos.sharpness, reference.adjust_sharpness),
    ],
)
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
def test_colours_change_as_torchvision_changes_them(ours, theirs, factor: float) -> None:
    x = pictures()
    expected = torch.stack([theirs(image, factor) for image in x])
    found = ours(x, torch.full((len(x), 1, 1, 1), factor))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # theirs has grey shares of four digits


def test_levels_change_as_torchvision_changes_them() -> None:
    levels = (pictures() * 255).round().byte()
    x = levels.float() / 255
    for bits in (4, 6, 8):
        found = photos.posterise(x, torch.full((len(x), 1, 1, 1), float(bits)))
        assert torch.equal((found * 255).round().byte(), reference.posterize(levels, bits))
    assert torch.equal(photos.solarise(x, torch.full((len(x), 1, 1, 1), 0.4)), reference.solarize(x, 0.4))
    torch.testing.assert_close(photos.autocontrast(x), reference.autocontrast(x))
    assert torch.equal(photos.autocontrast(x * 0 + 0.3), x * 0 + 0.3)


def test_places_move_by_shares_of_the_image() -> None:
    x = pictures(20)
    moved = photos.OPERATIONS["shift x"](x, torch.full((6,), 0.5))  # 0.4 of half of the side: 4 pixels
    torch.testing.assert_close(moved[..., :16], x[..., 4:], atol=1e-5, rtol=0)
    turned = photos.OPERATIONS["turn"](x, torch.full((6,), 1.0))
    expected = reference.rotate(x, 45.0, interpolation=reference.InterpolationMode.BILINEAR)
    centre = (..., slice(7, 13), slice(7, 13))
    torch.testing.assert_close(turned[centre], expected[centre], atol=1e-4, rtol=0)
    small, large = x, F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
    options = {"value_range": (0.0, 1.0), "operations": 0, "colour": 0.0}
    drawn = [pl.photo_augment(y, torch.Generator().manual_seed(3), **options) for y in (small, large)]
    shrunk = F.avg_pool2d(drawn[1], 4)
    assert float((drawn[0] - shrunk).abs().mean()) < 0.02
    assert float((x - drawn[0]).abs().mean()) > 0.05  # something did happen


def test_nothing_asked_is_nothing_done_and_mirrors_mirror() -> None:
    x = pictures()
    nothing = {"area": (1.0, 1.0), "stretch": 1.0, "colour": 0.0, "operations": 0, "value_range": (0.0, 1.0)}
    torch.testing.assert_close(pl.photo_augment(x, flip=0.0, **nothing), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(pl.photo_augment(x, flip=1.0, **nothing), x.flip(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_range_and_kind_of_image_comes_back_in_its_range(channels: int) -> None:
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (-2.0, 3.0)):
        x = pictures(9, 200, channels) * (high - low) + low
        out = pl.photo_augment(x, torch.Generator().manual_seed(0), magnitude=1.0, value_range=(low, high))
        assert out.shape == x.shape
        assert bool(out.isfinite().all())
        assert low - 1e-5 <= float(out.min()) < float(out.max()) <= high + 1e-5
        again = pl.photo_augment(x, torch.Generator().manual_seed(0), magnitude=1.0, value_range=(low, high))
        assert torch.equal(out, again)
    half = pl.photo_augment(pictures(8).half().mul(2).sub(1))
    assert half.dtype == torch.float16
    with pytest.raises(ValueError, match="floating"):
        pl.photo_augment(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="value_range"):
        pl.photo_augment(x, value_range=(1.0, 1.0))


def test_the_recipe_trains_with_it_by_name() -> None:
    torch.manual_seed(0)
    x, y = pictures(16, 40) * 2 - 1, torch.arange(40) % 2
    labeler = pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 2), augment="photo")
    with pytest.warns(pl.CollapseWarning):
        labeler.fit((x, y), (x, y), x, epochs=1)
    assert labeler.pool is not None
    assert labeler.pool.selected.any()
