from __future__ import annotations

import io
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from robustvision_core.data import Photos, blend, draw_backgrounds, load, read_photos
from robustvision_core.data.domains import blending as blending_module
from robustvision_core.errors import DataError, UserError
from torch import Tensor


def write_idx(path: pathlib.Path, array: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
    path.write_bytes(head + array.numpy().tobytes())


def write_grey(root: pathlib.Path, name: str = "mnist", counts: tuple[int, int] = (40, 20), side: int = 28) -> None:
    generator = torch.Generator().manual_seed(3)
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        images = torch.randint(0, 256, (count, side, side), dtype=torch.uint8, generator=generator)
        images[torch.rand(images.shape, generator=generator) < 0.6] = 0
        write_idx(root / name / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / name / f"{prefix}-labels-idx1-ubyte", (torch.arange(count) % 10).byte())


def photo_bytes(height: int, width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_photos(path: pathlib.Path, names: tuple[str, ...] = ("b.png", "a.png", "c.png"), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "none")
        for k, name in enumerate(names):
            archive.writestr(name, photo_bytes(40 + 7 * k, 60 - 5 * k, seed + k))


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    write_grey(tmp_path)
    write_grey(tmp_path, "fashion-mnist")
    write_photos(tmp_path / "mnist-m" / "bsds500_train.zip")
    return tmp_path


@pytest.mark.parametrize("binarise", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_blend_is_the_formula(binarise: bool, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending_module, "CHUNK", 3)
    figures = torch.randint(0, 256, (7, channels, 5, 4), dtype=torch.uint8)
    figures[figures < 100] = 0
    patches = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8)
    blended = blend(figures, patches, binarise=binarise)
    for n in range(7):
        for k in range(3):
            for i in range(5):
                for j in range(4):
                    figure = int(figures[n, min(k, channels - 1), i, j])
                    level = (255 if figure > 0 else 0) if binarise else figure
                    assert int(blended[n, k, i, j]) == abs(level - int(patches[n, k, i, j]))


@given(st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=60)
def test_blend_twice_gives_the_background_back(figure: int, background: int) -> None:
    grey = torch.full((1, 1, 1, 1), figure, dtype=torch.uint8)
    patch = torch.full((1, 3, 1, 1), background, dtype=torch.uint8)
    once = blend(grey, patch)
    assert torch.equal(blend(grey, once), patch)
    assert torch.equal(once ^ ((grey > 0).byte() * 255), patch)  # turning a byte over is an exclusive or


def test_blend_refuses_other_shapes() -> None:
    patch = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for figures in (patch[:1], patch[:, :2], patch.float(), torch.zeros(2, 1, 4, 5, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"expected \(N, 1, H, W\)"):
            blend(figures, patch)


def mixed_photos() -> tuple[Photos, list[Tensor]]:
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in ((9, 20), (8, 8), (30, 11))]
    return Photos.of(images, "photos"), images


def test_crops_are_windows_at_the_drawn_places() -> None:
    photos, images = mixed_photos()
    index = torch.arange(3000)
    cut = photos.crops(index, 8, seed=4, stream=1)
    for crop, photo, top, left in zip(cut, *photos.places(index, 8, seed=4, stream=1), strict=True):
        assert torch.equal(crop, images[photo][:, top : top + 8, left : left + 8])


def test_every_photo_and_place_is_equally_likely() -> None:
    photos, images = mixed_photos()
    photo, top, left = photos.places(torch.arange(30000), 8, seed=0)
    assert (torch.bincount(photo, minlength=3) / 30000 - 1 / 3).abs().max() < 4 * (2 / 9 / 30000) ** 0.5
    for number, image in enumerate(images):
        rows, columns = image.shape[1] - 7, image.shape[2] - 7
        seen = torch.bincount((top * columns + left)[photo == number], minlength=rows * columns)
        assert len(seen) == rows * columns  # the last place included
        expected = float(seen.sum()) / len(seen)
        assert (
            float(((seen - expected) ** 2 / expected).sum()) < len(seen) + 6 * (2 * len(seen)) ** 0.5 + 1
        )  # chi-square


def test_a_crop_depends_on_its_number_alone() -> None:
    photos, _ = mixed_photos()
    order = torch.randperm(2000)[:1500]
    assert torch.equal(photos.crops(torch.arange(2000), 8, 5)[order], photos.crops(order, 8, 5))
    assert not torch.equal(photos.crops(order, 8, 5), photos.crops(order, 8, 6))
    assert not torch.equal(photos.crops(order, 8, 5), photos.crops(order, 8, 5, stream=1))
    with pytest.raises(DataError, match="photos has a photo smaller than 9x9"):
        photos.crops(order, 9, 0)


def test_photos_of_folder_zip_and_tar_are_the_same(tmp_path: pathlib.Path) -> None:
    write_photos(tmp_path / "zip.zip", ("x/b.png", "a.png", "x/.hidden.png"))
    with zipfile.ZipFile(tmp_path / "zip.zip") as archive:
        archive.extractall(tmp_path / "folder")
    with tarfile.open(tmp_path / "tar.tgz", "w:gz") as archive:
        archive.add(tmp_path / "folder", "top")
    read = [read_photos(tmp_path / name, "train") for name in ("zip.zip", "folder", "tar.tgz")]
    for photos in read:
        assert photos.sizes.tolist() == [[47, 55], [40, 60]]
        assert torch.equal(photos.pixels, read[0].pixels)


@pytest.mark.parametrize(("split", "height"), [("train", 40), ("test", 47), ("val", 40)])
def test_photos_of_the_split_are_taken_where_there_are_any(tmp_path: pathlib.Path, split: str, height: int) -> None:
    write_photos(tmp_path / "p.zip", ("BSDS500/train/a.png", "BSDS500/test/a.png", "bench/a.png"))
    assert read_photos(tmp_path / "p.zip", split).sizes[:, 0].tolist() == [height]


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "base"), [("mnist-m", "mnist"), ("fashion-mnist-m", "fashion-mnist")])
def test_mnist_m_is_made_of_its_parts(root: pathlib.Path, name: str, base: str, split: str, size: int) -> None:
    grey, made = load(base, split, root), load(name, split, root, size=size, seed=2, binarise=True)
    border = (size - 28) // 2
    assert made.shape == (3, size, size)
    assert made.name == f"{name}/{split}"
    assert torch.equal(made.labels, grey.labels)
    assert torch.equal(made.ids, grey.ids)
    assert made.classes == grey.classes
    photos = read_photos(root / "mnist-m" / "bsds500_train.zip", split)
    crops = photos.crops(made.ids, size, 2, stream=("train", "test").index(split))
    mask = torch.zeros(len(grey), 1, size, size, dtype=torch.uint8)
    mask[:, :, border : border + 28, border : border + 28] = (grey.images > 0).byte() * 255
    assert torch.equal(made.images ^ mask, crops)


def test_grey_levels_stay_where_they_are_not_binarised(root: pathlib.Path) -> None:
    grey, made = load("fashion-mnist", root=root), load("fashion-mnist-m", root=root)
    crops = read_photos(root / "mnist-m" / "bsds500_train.zip", "train").crops(made.ids, 28, 0)
    assert torch.equal(made.images.short(), (grey.images.short() - crops.short()).abs())
    assert not torch.equal(made.images, load("fashion-mnist-m", root=root, binarise=True).images)


def test_test_photos_and_photos_elsewhere(root: pathlib.Path) -> None:
    before = {split: load("mnist-m", split, root).images for split in ("train", "test")}
    write_photos(root / "mnist-m" / "bsds500_test.zip", seed=50)
    assert torch.equal(load("mnist-m", "train", root).images, before["train"])
    assert not torch.equal(load("mnist-m", "test", root).images, before["test"])
    given = load("mnist-m", "train", root, photos=str(root / "mnist-m" / "bsds500_test.zip")).images
    assert not torch.equal(given, before["train"])
    with pytest.raises(DataError, match="there is no folder or archive of photos"):
        load("mnist-m", root=root, photos=str(root / "nowhere"))


@pytest.mark.parametrize("name", ["mnist-m-procedural", "fashion-mnist-m-procedural"])
def test_procedural_backgrounds_need_no_photos(tmp_path: pathlib.Path, name: str) -> None:
    base = name.removesuffix("-m-procedural")
    write_grey(tmp_path, base)
    grey, made = load(base, "test", tmp_path), load(name, "test", tmp_path, seed=7)
    drawn = draw_backgrounds(grey.ids, 28, 7, stream=1)
    assert torch.equal(made.images, blend(grey.images, drawn, binarise=base == "mnist"))
    assert made.name == f"{name}/test"


def test_backgrounds_depend_on_their_number_alone_and_differ() -> None:
    index = torch.randperm(1200)
    whole = draw_backgrounds(torch.arange(1200), 28, 0)
    assert torch.equal(draw_backgrounds(index, 28, 0), whole[index])
    assert not torch.equal(draw_backgrounds(index, 28, 1), whole[index])
    assert not torch.equal(draw_backgrounds(index, 28, 0, stream=1), whole[index])
    means = whole.float().mean((2, 3))
    assert means.std(0).min() > 20  # images differ in tone,
    assert (means[:, 0] - means[:, 1]).abs().mean() > 10  # and channels, in most
    fine = (whole[..., 1:].float() - whole[..., :-1].float()).abs().mean()
    assert 3 < fine < whole.float().std((2, 3)).mean()  # smoother than noise, yet no flat colour


def test_mnist_m_errors(root: pathlib.Path) -> None:
    with pytest.raises(DataError, match="mnist: found no train-images-idx3-ubyte"):
        load("mnist-m", root=root / "none")
    with pytest.raises(DataError, match="mnist-m: size is 31, expected 28 or 32"):
        load("mnist-m", root=root, size=31)
    with pytest.raises(UserError, match="unknown option of mnist-m-procedural 'photos'"):
        load("mnist-m-procedural", root=root, photos="x")
    archive = root / "mnist-m" / "bsds500_train.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"bsds500_train.zip is truncated or no archive"):
        load("mnist-m", root=root)
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("one.jpg", b"no image")
    with pytest.raises(DataError, match=r"bsds500_train.zip: one.jpg is truncated or no image"):
        load("mnist-m", root=root)
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("one.txt", b"no image")
    with pytest.raises(DataError, match=r"bsds500_train.zip holds no photos"):
        load("mnist-m", root=root)
    archive.unlink()
    with pytest.raises(DataError, match=r"mnist-m: found no bsds500_train.zip, BSR_bsds500.tgz or BSDS500/ under"):
        load("mnist-m", root=root)


def write_released(top: pathlib.Path, lines: str = "00000001.png 7\n00000000.png 3\n") -> None:
    for split in ("train", "test"):
        (top / f"mnist_m_{split}").mkdir(parents=True)
        for k in range(2):
            (top / f"mnist_m_{split}" / f"0000000{k}.png").write_bytes(photo_bytes(32, 32, 10 * len(split) + k))
        (top / f"mnist_m_{split}_labels.txt").write_text(lines)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["", "mnist-m"])
def test_released_layout(tmp_path: pathlib.Path, place: str, packed: bool) -> None:
    top = tmp_path / place / "mnist_m"
    write_released(top)
    if packed:
        with tarfile.open(tmp_path / place / "mnist_m.tar.gz", "w:gz") as archive:
            archive.add(top, "mnist_m")
        top.rename(tmp_path / "away")
    for split in ("train", "test"):
        data = load("mnist-m-released", split, tmp_path)
        assert data.labels.tolist() == [7, 3]
        assert data.shape == (3, 32, 32)
        pixels = np.random.default_rng(10 * len(split) + 1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        np.testing.assert_array_equal(data.images[0].permute(1, 2, 0).numpy(), pixels)
    assert load("mnist-m-released", "train", tmp_path, size=28).shape == (3, 28, 28)


def test_released_errors(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"found no mnist_m/ or mnist_m.tar.gz under"):
        load("mnist-m-released", root=tmp_path)
    top = tmp_path / "mnist_m"
    write_released(top, "00000001.png 7\n00000009.png 3\n")
    with pytest.raises(DataError, match=r"has no mnist_m_train/00000009.png, which mnist_m_train_labels.txt lists"):
        load("mnist-m-released", root=tmp_path)
    (top / "mnist_m_train_labels.txt").write_text("00000001.png 12\n")
    with pytest.raises(DataError, match=r"labels.txt, line 1 is '00000001.png 12', expected a file name and a digit"):
        load("mnist-m-released", root=tmp_path)
    (top / "mnist_m_train_labels.txt").unlink()
    with pytest.raises(DataError, match=r"has no mnist_m_train_labels.txt"):
        load("mnist-m-released", root=tmp_path)
    with pytest.raises(DataError, match="size is 0, expected 1 to 512"):
        load("mnist-m-released", root=tmp_path, size=0)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "base"), [("mnist-m", "mnist"), ("fashion-mnist-m", "fashion-mnist")])
def test_real_photos_come_back(real_data: pathlib.Path, name: str, base: str) -> None:
    grey, made = load(base, "test", real_data), load(name, "test", real_data, binarise=True)
    photos = read_photos(real_data / "mnist-m" / "bsds500_train.zip", "test")
    assert len(photos) == 200
    assert sorted({tuple(sorted(size)) for size in photos.sizes.tolist()}) == [(321, 481)]
    back = made.images ^ ((grey.images > 0).byte() * 255)
    assert torch.equal(back, photos.crops(grey.ids, 28, 0, stream=1))
    # neighbours in a photo are alike, those of unrelated pixels are not
    near = (back[..., 1:].short() - back[..., :-1].short()).abs().float().mean()
    far = (back[..., 1:].short() - back[..., :-1].roll(1, 0).short()).abs().float().mean()
    assert near < 0.4 * far
