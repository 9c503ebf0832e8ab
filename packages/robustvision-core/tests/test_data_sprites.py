from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from robustvision_core.data import load, rotate
from robustvision_core.data.offline.sprite_art import draw_sprites
from robustvision_core.data.offline.sprites import read_sprites
from robustvision_core.errors import DataError
from torch.nn import functional


def test_counts_classes_and_angles_on_hand() -> None:
    train, test = load("sprites"), load("sprites", "test")
    assert (len(train), len(test)) == (12000, 600)
    assert train.shape == (3, 32, 32)
    assert train.classes == ("lighthouse up", "lighthouse down", "fish up", "fish down")
    assert train.class_counts().tolist() == [3000] * 4
    assert train.extras["angle"].shape == (12000,)
    assert not torch.isin(test.extras["angle"], train.extras["angle"][:600]).all()


def test_images_are_the_sprites_turned_by_the_angle() -> None:
    from scipy import ndimage

    data = load("sprites", count=12, seed=3)
    sprites, _ = draw_sprites(32)
    for image, label, angle in zip(data.images, data.labels, data.extras["angle"], strict=True):
        # scipy's positive angles are counterclockwise as seen
        turned = ndimage.rotate(
            sprites[label // 2].numpy(), -math.degrees(angle), axes=(1, 2), reshape=False, order=1, mode="constant"
        )
        assert np.abs(image.numpy() / 255 - turned).max() < 0.51 / 255 + 1e-3


def test_clockwise_is_positive() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 4] = 1  # on the right
    turned = rotate(image, torch.tensor([math.pi / 2]))
    assert turned[0, 0, 4, 2] == pytest.approx(1, abs=1e-5)  # comes to the bottom
    assert turned.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("degrees", "modes"), [(45, 1), (90, 1), (30, 3), (20, 2), (10, 4)])
def test_modes_tile_the_circle_as_described(degrees: float, modes: int) -> None:
    data = load("sprites", degrees=degrees, modes=modes, size=16, count=4000)
    angle = data.extras["angle"].double()
    assert -math.pi <= angle.min()
    assert angle.max() < math.pi
    for label in range(4):
        own = angle[data.labels == label]
        down = label % 2 * (math.pi if modes % 2 else math.pi / modes)
        centres = down + torch.arange(modes) * 2 * math.pi / modes
        off = torch.remainder(own[:, None] - centres + math.pi, 2 * math.pi) - math.pi
        nearest = off.abs().min(1)
        assert nearest.values.max() <= math.radians(degrees) + 1e-5
        counts = torch.bincount(nearest.indices, minlength=modes)
        assert (counts / len(own) - 1 / modes).abs().max() < 4 * 0.5 / len(own) ** 0.5
        inside = off.gather(1, nearest.indices[:, None])[:, 0] / math.radians(degrees)
        assert abs(float(inside.mean())) < 4 / (3 * len(own)) ** 0.5  # uniform in [-1, 1]:
        assert abs(float(inside.var()) - 1 / 3) < 0.05  # its variance is a third


def test_an_image_depends_on_its_index_alone() -> None:
    few, many = load("sprites", count=40, seed=5), load("sprites", count=3000, seed=5)
    assert torch.equal(few.images, many.images[:40])
    assert torch.equal(few.extras["angle"], many.extras["angle"][:40])
    assert not torch.equal(few.extras["angle"], load("sprites", count=40, seed=6).extras["angle"])


def test_small_images_are_averages_of_large_ones() -> None:
    large, small = load("sprites", count=40), load("sprites", count=40, size=16)
    expected = functional.avg_pool2d(large.images.float(), 2)
    assert (small.images.float() - expected).abs().max() <= 1  # rounded once rather than twice


def test_no_sprite_is_like_itself_turned_or_mirrored() -> None:
    sprites, _ = draw_sprites(32)
    size = float(sprites.square().mean())
    angles = torch.arange(30, 331, 10) * (math.pi / 180)
    for sprite in sprites:
        for image in (sprite, sprite.flip(-1)):
            # the mirrored ones are compared at every angle, the others at all but the near ones
            chosen = angles if image is sprite else torch.arange(0, 360, 10) * (math.pi / 180)
            turned = rotate(image.expand(len(chosen), -1, -1, -1), chosen)
            assert (turned - sprite).square().mean((1, 2, 3)).min() > 0.25 * size
    for sprite in sprites:  # the corners are empty: nothing is cut by any turn
        axis = torch.arange(32) - 15.5
        outside = axis[:, None] ** 2 + axis**2 > 15.5**2
        assert sprite[:, outside].max() == 0


@pytest.mark.parametrize("form", ["chw", "1chw", "hwc", "hw", "uint8"])
def test_own_sprites(tmp_path: pathlib.Path, form: str) -> None:
    pixels = np.random.default_rng(0).random((2, 3, 32, 32))
    shaped: dict[str, Any] = {
        "chw": pixels,
        "1chw": pixels[:, None],
        "hwc": pixels.transpose(0, 2, 3, 1),
        "hw": pixels[:, 0],
        "uint8": (pixels * 255).round().astype(np.uint8),
    }
    np.savez(tmp_path / "two.npz", zoe=shaped[form][0], abe=shaped[form][1])
    sprites, names = read_sprites(tmp_path / "two.npz")
    assert names == ("abe", "zoe")
    expected = pixels[::-1, :1] if form == "hw" else pixels[::-1]
    np.testing.assert_allclose(sprites.numpy(), expected, atol=0.5 / 255 if form == "uint8" else 1e-6)
    data = load("sprites", npz=str(tmp_path / "two.npz"), count=8, degrees=0)
    assert data.classes[2:] == ("zoe up", "zoe down")
    assert (data.images[2] / 255 - sprites[1]).abs().max() < 0.51 / 255


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, 32, 32))}, "holds a: expected two images"),
        ({"a": np.zeros((3, 32, 32)), "b": np.zeros((3, 16, 16))}, r"b is \(3, 16, 16\).*expected 32x32 pixels"),
        ({"a": np.zeros((3, 32, 32)), "b": np.full((3, 32, 32), 7.0)}, r"b is .*floating point in \[0, 1\]"),
        ({"a": np.zeros((3, 32, 32)), "b": np.full((3, 32, 32), np.nan)}, r"b is .*floating point in \[0, 1\]"),
        ({"a": np.zeros((3, 32, 32)), "b": np.zeros((3, 32, 32), np.int64)}, "b is .*int64"),
        ({"a": np.zeros((3, 32, 32)), "b": np.zeros((32, 32))}, "a has 3 channels, b 1"),
    ],
)
def test_wrong_sprites_are_refused(tmp_path: pathlib.Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "two.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load("sprites", npz=str(tmp_path / "two.npz"))


def test_broken_and_missing_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*none.npz"):
        load("sprites", npz=str(tmp_path / "none.npz"))
    (tmp_path / "two.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"two.npz is truncated or no .npz file"):
        load("sprites", npz=str(tmp_path / "two.npz"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degrees": 181}, "degrees is 181, expected 0 to 180"),
        ({"modes": 0}, "modes is 0, expected 1 to 360"),
        ({"size": 20}, "size is 20, expected 32 or 16"),
        ({"count": 0}, "count is 0, expected 1 or more"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"sprites: {message}"):
        load("sprites", **options)
