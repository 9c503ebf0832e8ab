from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from robustvision_core.data import DeviceBatches, ImageSet
from robustvision_core.data.transforms.augment import affine_augment, random_flip, random_rotation, random_shift
from scipy import ndimage
from torch import Tensor
from torch.nn import functional


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(image: Tensor, pixels: int) -> dict[bytes, tuple[int, int]]:
    """Every shift of one image, as torch pads and crops it."""
    _, h, w = image.shape
    padded = functional.pad(image, (pixels,) * 4)
    spots = [(y, x) for y in range(2 * pixels + 1) for x in range(2 * pixels + 1)]
    return {padded[:, y : y + h, x : x + w].contiguous().numpy().tobytes(): (y, x) for y, x in spots}


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 9)])
@pytest.mark.parametrize("pixels", [0, 2, 10])
def test_shift_is_a_crop_of_the_padded_image(shape: tuple[int, ...], pixels: int) -> None:
    images = torch.rand(40, *shape)
    for before, after in zip(images, random_shift(images, pixels, generator()), strict=True):
        assert after.numpy().tobytes() in windows(before, pixels)


def test_every_shift_comes_equally_often() -> None:
    image = torch.rand(1, 7, 7)
    shifted = random_shift(image.expand(9000, 1, 7, 7), 1, generator())
    known = windows(image, 1)
    counts = torch.zeros(3, 3)
    for after in shifted:
        counts[known[after.numpy().tobytes()]] += 1
    assert (counts / 9000 - 1 / 9).abs().max() < 4 * math.sqrt(1 / 9 * 8 / 9 / 9000)


def test_flip_mirrors_half() -> None:
    images = torch.rand(2000, 2, 3, 4)
    flipped = random_flip(images, generator())
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.05
    assert torch.equal(random_flip(images, generator(), p=1), images.flip(-1))
    assert torch.equal(random_flip(images, generator(), p=0), images)


def test_without_rotation_nothing_is_interpolated() -> None:
    images = torch.rand(64, 3, 8, 8)
    out = affine_augment(shift=2, flip=True, degrees=0)(images, generator())
    for before, after in zip(images, out, strict=True):
        known = windows(before, 2) | windows(before.flip(-1), 2)
        assert after.numpy().tobytes() in known


@pytest.mark.parametrize("shape", [(2, 9, 9), (1, 8, 13)])
def test_a_vanishing_rotation_is_the_exact_path(shape: tuple[int, ...]) -> None:
    images = torch.rand(32, *shape, dtype=torch.float64)
    exact = affine_augment(shift=3, flip=True, degrees=0)(images, generator(4))
    turned = affine_augment(shift=3, flip=True, degrees=1e-9)(images, generator(4))
    torch.testing.assert_close(turned, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("height", "width"), [(21, 21), (16, 25)])
def test_rotation_agrees_with_scipy(height: int, width: int) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((height, width)), 1.5)
    images = torch.from_numpy(image).expand(6, 1, height, width)
    out = random_rotation(images, 40, generator(1))
    angles = (2 * torch.rand(6, generator=_after_corners(6), dtype=torch.float64) - 1) * 40
    assert angles.abs().max() > 15
    for after, angle in zip(out, angles, strict=True):
        padded = np.pad(image, 12)  # scipy clips at half a pixel outside where grid_sample fades to zero
        expected = ndimage.rotate(padded, float(angle), reshape=False, order=1)[12:-12, 12:-12]
        np.testing.assert_allclose(after[0].numpy(), expected, rtol=0, atol=1e-9)


def _after_corners(count: int) -> torch.Generator:
    g = generator(1)
    torch.randint(1, (count, 2), generator=g)
    return g


def test_rotation_order_is_rotate_mirror_shift() -> None:
    """A quarter turn is exact on a grid, so that the order of the three can be checked by torch.rot90."""
    images = torch.rand(200, 1, 9, 9, dtype=torch.float64)
    unit = torch.rand(200, generator=_skip(200), dtype=torch.float64)
    at_most = 90 / (2 * unit - 1).abs().max()  # the sample with the largest draw turns by exactly 90 degrees
    turned = int((2 * unit - 1).abs().argmax())
    out = affine_augment(shift=1, flip=True, degrees=float(at_most))(images, generator(2))[turned]
    way = 1 if 2 * unit[turned] > 1 else -1
    base = torch.rot90(images[turned], way, (1, 2))
    known = [torch.frombuffer(bytearray(k), dtype=torch.float64) for b in (base, base.flip(-1)) for k in windows(b, 1)]
    distances = torch.stack([(out.flatten() - k).abs().max() for k in known])
    assert distances.min() < 1e-9


def _skip(count: int) -> torch.Generator:
    g = generator(2)
    torch.randint(3, (count, 2), generator=g)
    torch.rand(count, generator=g)
    return g


@pytest.mark.parametrize("degrees", [0, 15])
def test_the_generator_alone_decides(degrees: float) -> None:
    images = torch.rand(16, 3, 8, 8)
    augment = affine_augment(degrees=degrees)
    before = torch.get_rng_state()
    once = augment(images, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(once, augment(images, generator(3)))
    assert not torch.equal(once, augment(images, generator(4)))


def test_gradients_reach_the_images() -> None:
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    augment = affine_augment(shift=1, degrees=20)
    assert torch.autograd.gradcheck(lambda x: augment(x, generator(5)), (images,))


def test_works_in_device_batches() -> None:
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8)
    data = ImageSet(images, torch.zeros(10).long(), ("a",))
    batches = DeviceBatches(data, 5, augment=affine_augment(shift=0, flip=False, degrees=0))
    plain = DeviceBatches(data, 5)
    for one, two in zip(batches.epoch(0), plain.epoch(0), strict=True):
        torch.testing.assert_close(one.images, two.images, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"shift": 1.5}, {"degrees": -3}])
def test_wrong_amounts(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        affine_augment(**wrong)  # type: ignore[arg-type]
