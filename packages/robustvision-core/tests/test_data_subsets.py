from __future__ import annotations

import math
import pathlib
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robustvision_core.data import (
    ImageSet,
    load,
    long_tail,
    pad_to,
    resize,
    rotate_each,
    select_classes,
    split_labelled,
    to_rgb,
)
from robustvision_core.errors import DataError
from torch.nn import functional

CIFAR_LT = [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]  # of 20,431 images, as published with the method


def make(labels: list[int] | torch.Tensor, classes: int, shape: tuple[int, int, int] = (1, 1, 1)) -> ImageSet:
    labels = torch.as_tensor(labels, dtype=torch.int64)
    images = torch.randint(0, 256, (len(labels), *shape), dtype=torch.uint8)
    return ImageSet(images, labels, tuple("abcdefghijklmn"[:classes]))


def test_long_tail_of_cifar() -> None:
    data = make(torch.randperm(50000) % 10, 10)
    tail = long_tail(data, 10)
    assert tail.class_counts().tolist() == CIFAR_LT
    assert len(tail) == 20431
    for label, count in enumerate(CIFAR_LT):  # the first of each class, in order
        assert torch.equal(tail.ids[tail.labels == label], data.ids[data.labels == label][:count])
    assert torch.equal(tail.ids, tail.ids.sort().values)
    assert long_tail(data, 10, largest=100).class_counts().tolist() == [int(100 * 0.1 ** (c / 9)) for c in range(10)]


@given(st.lists(st.integers(50, 90), min_size=1, max_size=6), st.floats(1, 20))
def test_long_tail_takes_as_much_as_there_is(counts: list[int], rho: float) -> None:
    data = make(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts))
    got = long_tail(data, rho).class_counts().tolist()
    assert all(1 <= have <= there for have, there in zip(got, counts, strict=True))
    exact = [rho ** (-c / max(len(counts) - 1, 1)) for c in range(len(counts))]
    assert all(abs(have - got[0] * share) < 1 + 1e-6 for have, share in zip(got, exact, strict=True))
    top = got[0] + 1  # one more would be too many for some class
    assert any(top * share > there - 1e-6 for share, there in zip(exact, counts, strict=True))


def test_long_tail_errors() -> None:
    data = make(torch.arange(100) % 5, 5)
    for rho in (0.5, math.inf, math.nan):
        with pytest.raises(DataError, match="expected 1 or more"):
            long_tail(data, rho)
    with pytest.raises(DataError, match=r"class 'a' has 20 samples and would get 21 .* lower largest"):
        long_tail(data, 10, largest=21)
    with pytest.raises(DataError, match=r"class 'd' has 20 samples and would get 0 .* lower rho"):
        long_tail(data, 100)


@pytest.mark.parametrize("wanted", [(4, 0, 2), ("e", "a", "c"), ("e", 0, 2)])
def test_select_classes(wanted: tuple[int | str, ...]) -> None:
    data = make(torch.randint(0, 5, (60,)), 5)
    chosen = select_classes(data, wanted)
    assert chosen.classes == ("e", "a", "c")
    expected = [i for i, label in enumerate(data.labels.tolist()) if label in (4, 0, 2)]
    assert chosen.ids.tolist() == expected
    assert [chosen.classes[k] for k in chosen.labels] == [data.classes[k] for k in data.labels[expected]]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [((7,), "has no class 7: it has a, b"), (("z",), "has no class 'z'"), ((0, "a"), "each once"), ((), "each once"),
     ((-1,), "has no class -1")],
)  # fmt: skip
def test_select_classes_refuses(wanted: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        select_classes(make([0, 1], 2), wanted)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 5))
def test_labelled_share_of_each_class(labels: list[int], share: float, seed: int) -> None:
    data = make(labels, 4)
    labelled, rest = split_labelled(data, share, seed=seed)
    assert sorted([*labelled.ids.tolist(), *rest.ids.tolist()]) == list(range(len(labels)))
    for part in (labelled, rest):
        assert torch.equal(part.ids, part.ids.sort().values)
        assert torch.equal(part.labels, data.labels[part.ids])
    for got, have in zip(labelled.class_counts().tolist(), data.class_counts().tolist(), strict=True):
        assert abs(got - share * have) <= 0.5 + 1e-5 or (got == 1 and share * have < 1)
        assert bool(got) == bool(have)


def test_labelled_count_of_each_class_is_nested_and_seeded() -> None:
    data = make(torch.randperm(300) % 3, 4)  # the fourth has no sample
    small, large = (split_labelled(data, n, seed=1)[0] for n in (5, 20))
    assert small.class_counts().tolist() == [5, 5, 5, 0]
    assert torch.isin(small.ids, large.ids).all()
    assert not torch.equal(small.ids, split_labelled(data, 5, seed=2)[0].ids)
    assert len(split_labelled(data, 0, seed=1)[0]) == len(split_labelled(data, 0.0, seed=1)[0]) == 0
    assert len(split_labelled(data, 1.0, seed=1)[1]) == 0
    times = torch.zeros(300)
    for seed in range(200):
        times[split_labelled(data, 20, seed=seed)[0].ids] += 1
    assert (times / 200 - 0.2).abs().max() < 5 * (0.16 / 200) ** 0.5


@pytest.mark.parametrize("amount", [4, -1, 1.5, -0.1])
def test_labelled_amounts_that_are_not_there(amount: float) -> None:
    with pytest.raises(DataError, match=r"has 3 samples|counts start at 0|expected 0 to 1"):
        split_labelled(make([0, 0, 0, 1, 1, 1], 2), amount, seed=0)


def test_rotation_stays_with_the_id() -> None:
    data = make(torch.arange(3000) % 3, 3, (1, 9, 9))
    rotated = rotate_each(data, 60, seed=2)
    some = torch.randperm(3000)[:700]
    part = rotate_each(data.take(some), 60, seed=2)
    assert torch.equal(part.images, rotated.images[some])
    assert torch.equal(part.extras["angle"], rotated.extras["angle"][some])
    assert not torch.equal(rotate_each(data, 60, seed=3).images, rotated.images)
    unit = rotated.extras["angle"] / math.radians(60)
    assert unit.abs().max() <= 1
    assert abs(float(unit.mean())) < 4 / 9000**0.5
    assert abs(float(unit.var()) - 1 / 3) < 0.03


def test_rotation_is_that_of_scipy_and_adds_up() -> None:
    from scipy import ndimage

    data = make([0] * 6, 1, (3, 12, 12))
    once = rotate_each(data, 180, seed=0)
    for before, after, angle in zip(data.images, once.images, once.extras["angle"], strict=True):
        degrees = -math.degrees(angle)  # scipy's positive angles are counterclockwise as seen
        turned = ndimage.rotate(before.double().numpy(), degrees, axes=(1, 2), reshape=False, order=1, mode="constant")
        # beyond the border scipy gives zero at once, torch over one pixel: the inside must agree
        inner = np.s_[:, 3:9, 3:9]
        assert np.abs(after.numpy()[inner] - turned[inner]).max() < 0.51
    twice = rotate_each(once, 180, seed=1)
    alone = rotate_each(data, 180, seed=1)
    torch.testing.assert_close(twice.extras["angle"], once.extras["angle"] + alone.extras["angle"])
    assert torch.equal(rotate_each(data, 0, seed=0).images, data.images)
    with pytest.raises(DataError, match="degrees is 181"):
        rotate_each(data, 181, seed=0)


def test_resize_pad_and_colour() -> None:
    data = make([0] * 3, 1, (1, 6, 8))
    expected = functional.interpolate(data.images.float(), (4, 4), mode="bilinear", antialias=True)
    assert (resize(data, 4).images.float() - expected).abs().max() <= 0.5 + 1e-4
    square = make([0] * 3, 1, (1, 6, 6))
    assert resize(square, 6) is square
    padded = pad_to(data, 10)
    assert torch.equal(padded.images[:, :, 2:8, 1:9], data.images)
    assert padded.images.long().sum() == data.images.long().sum()
    assert torch.equal(to_rgb(data).images, data.images.expand(-1, 3, -1, -1))
    coloured = to_rgb(data)
    assert to_rgb(coloured) is coloured
    for wrong, message in ((lambda: resize(data, 0), "size is 0"), (lambda: pad_to(data, 7), "cannot pad 6x8"),
                           (lambda: to_rgb(make([0], 1, (2, 3, 3))), "has 2 channels")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            wrong()


def write_mnist(root: pathlib.Path) -> None:
    for prefix, count in (("train", 400), ("t10k", 100)):
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        for kind, array in (("images-idx3", images), ("labels-idx1", (torch.arange(count) % 10).byte())):
            path = root / "mnist" / f"{prefix}-{kind}-ubyte"
            path.parent.mkdir(exist_ok=True)
            head = struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
            path.write_bytes(head + array.numpy().tobytes())


def test_sets_by_name(tmp_path: pathlib.Path) -> None:
    write_mnist(tmp_path)
    mnist = {split: load("mnist", split, tmp_path) for split in ("train", "test")}
    tail = load("rot-mnist-lt", "train", tmp_path, rho=4, size=32)
    assert torch.equal(tail.ids, long_tail(mnist["train"], 4).ids)
    assert tail.shape == (1, 32, 32)
    assert tail.name == "rot-mnist-lt/train"
    test = load("rot-mnist-lt", "test", tmp_path)
    assert test.class_counts().tolist() == [10] * 10
    assert test.extras["angle"].abs().max() > 2  # radians: rotated as well, all the way round
    assert not torch.equal(test.extras["angle"], load("rot-mnist-lt", "train", tmp_path, rho=1).extras["angle"][:100])
    five = load("mnist-01569", "test", tmp_path)
    assert five.classes == ("0", "1", "5", "6", "9")
    assert torch.equal(five.images, mnist["test"].images[five.ids])
    assert not five.extras
    assert load("mnist-01569", "test", tmp_path, degrees=45).extras["angle"].abs().max() <= math.pi / 4
    np.savez(tmp_path / "cifar10.npz", x_train=np.zeros((100, 32, 32, 3), np.uint8), y_train=np.arange(100) % 10,
             x_test=np.zeros((20, 32, 32, 3), np.uint8), y_test=np.arange(20) % 10)  # fmt: skip
    assert load("cifar-10-lt", "train", tmp_path).class_counts().tolist() == [
        int(10 * 0.1 ** (c / 9)) for c in range(10)
    ]
    assert load("cifar-10-lt", "test", tmp_path).class_counts().tolist() == [2] * 10


@pytest.mark.parametrize("name", ["rot-mnist-lt", "mnist-01569", "cifar-10-lt"])
def test_missing_files(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(DataError, match="found no"):
        load(name, root=tmp_path)


@pytest.mark.realdata
def test_real_subsets(real_data: pathlib.Path) -> None:
    assert load("mnist-01569", root=real_data).class_counts().tolist() == [5923, 6742, 5421, 5918, 5949]
    counts = load("rot-mnist-lt", root=real_data).class_counts().tolist()
    assert counts == [int(5923 * 0.1 ** (c / 9)) for c in range(10)]
