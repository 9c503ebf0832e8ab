from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import DeviceBatches, FileBatches, folder_files, load
from robustvision_core.data.batches.base import Augment
from robustvision_core.data.reading.decode import decode
from robustvision_core.errors import DataError
from torch import Tensor
from torchvision.transforms import functional as reference


def save_image(path: pathlib.Path, height: int = 12, width: int = 17, mode: str = "RGB", seed: int = 0) -> Image.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(path)
    return image


def make_folder(top: pathlib.Path, per_class: int = 4) -> pathlib.Path:
    for c, name in enumerate(("ant", "bee", "cat")):
        for i in range(per_class):
            save_image(top / name / f"{i}.png", 12 + i, 17 - i, seed=10 * c + i)
    (top / "ant" / "notes.txt").write_text("no image")
    return top


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("RGB", "bmp")]
)
@pytest.mark.parametrize("grey", [False, True])
def test_decode_converts_every_mode(tmp_path: pathlib.Path, mode: str, suffix: str, grey: bool) -> None:
    path = tmp_path / f"a.{suffix}"
    image = save_image(path, mode=mode)
    expected = np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"))).transpose(2, 0, 1)
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(decode(source, "a", grey=grey).numpy(), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("grey", [False, True])
def test_sixteen_bits_keep_their_levels(tmp_path: pathlib.Path, suffix: str, grey: bool) -> None:
    levels = np.arange(0, 65536, 373, dtype=np.uint16)[:165].reshape(11, 15)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 15 11 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    pixels = decode(path, "a", grey=grey)
    assert pixels.shape == (1 if grey else 3, 11, 15)
    for channel in pixels.numpy():
        np.testing.assert_array_equal(channel, levels >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(tmp_path: pathlib.Path, kind: type) -> None:
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has pixels of 32 bits"):
        decode(tmp_path / "a.tif", "a.tif")


@pytest.mark.parametrize("size", [5, 12, 30])
@pytest.mark.parametrize(("height", "width"), [(12, 17), (40, 13), (12, 12)])
def test_resize_and_centre_crop_agree_with_torchvision(
    tmp_path: pathlib.Path, height: int, width: int, size: int
) -> None:
    image = save_image(tmp_path / "a.png", height, width)
    scale = size / min(height, width)
    sides = [max(size, round(height * scale)), max(size, round(width * scale))]  # torchvision rounds down
    resized: Any = reference.resize(image, sides)  # type: ignore[arg-type]  # declared for tensors only
    expected = reference.pil_to_tensor(reference.center_crop(resized, [size, size]))
    assert torch.equal(decode(tmp_path / "a.png", "a", size=size), expected)


def test_folder_is_read_in_order(tmp_path: pathlib.Path) -> None:
    data = load(f"folder:{make_folder(tmp_path)}", image_size=8)
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(data.images[5], decode(tmp_path / "bee" / "1.png", "", size=8))
    assert load(f"folder:{tmp_path}", image_size=8, grey=True).shape == (1, 8, 8)


def test_splits_number_classes_as_train_does(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path / "train")
    save_image(tmp_path / "test" / "cat" / "a.jpg")
    save_image(tmp_path / "test" / "bee" / "deep" / "b.JPEG")
    data = load(f"folder:{tmp_path}", "test", image_size=8)
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels.tolist() == [1, 2]
    save_image(tmp_path / "val" / "dog" / "a.png")
    with pytest.raises(DataError, match=r"val has a class 'dog' that .*train has not"):
        load(f"folder:{tmp_path}", "val")


def test_folder_errors_say_what_is_expected(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*none: expected .*none/<class>/<image>"):
        load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match=r"holds no images: expected .*/<class>/<image> \(.bmp"):
        load(f"folder:{tmp_path}")
    make_folder(tmp_path)
    with pytest.raises(DataError, match="has no folder test: make one, or load 'train' and cut it"):
        load(f"folder:{tmp_path}", "test")
    with pytest.raises(DataError, match="image_size is 0"):
        load(f"folder:{tmp_path}", image_size=0)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_broken_images_are_named(tmp_path: pathlib.Path, content: bytes | str) -> None:
    make_folder(tmp_path)
    path = tmp_path / "bee" / "2.png"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"bee/2\.png is truncated or no image") as caught:
        load(f"folder:{tmp_path}", image_size=8)
    assert "\n" not in str(caught.value)


def join(batches: object) -> tuple[Tensor, ...]:
    return tuple(torch.cat(part) for part in zip(*batches, strict=True))  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_folder(tmp_path_factory.mktemp("images"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [0, 2])
def test_file_batches_are_those_of_memory(folder: pathlib.Path, workers: int) -> None:
    data = load(f"folder:{folder}", image_size=8)
    options = {"shuffle": True, "seed": 3}
    memory = DeviceBatches(data, 5, **options)  # type: ignore[arg-type]
    files = FileBatches(folder_files(folder), 5, image_size=8, workers=workers, **options)  # type: ignore[arg-type]
    assert len(files) == len(memory) == 3
    torch.testing.assert_close(files.mean, memory.mean)
    before = torch.get_rng_state()
    for one, two in zip(files.epoch(1), memory.epoch(1), strict=True):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b)
    assert torch.equal(before, torch.get_rng_state())


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + torch.rand(images.shape, generator=generator)


def test_file_batches_resume_and_share(folder: pathlib.Path) -> None:
    files = folder_files(folder)

    def batches(augment: Augment | None = None, **options: Any) -> FileBatches:
        shared: dict[str, Any] = {"image_size": 8, "random_crop": True, "shuffle": True, "workers": 0}
        return FileBatches(files, 4, mean=0.5, std=0.5, augment=augment, **shared, **options)

    whole = list(batches(noise).epoch(2))
    for one, two in zip(whole[1:], batches(noise).epoch(2, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    ranks = [join(batches(rank=r, world_size=2).epoch(2)) for r in range(2)]
    together = {int(i): image for images, _, index in ranks for i, image in zip(index, images, strict=True)}
    alone, _, index = join(batches().epoch(2))
    assert sorted(together) == sorted(index.tolist()) == list(range(12))
    assert all(torch.equal(together[int(i)], image) for i, image in zip(index, alone, strict=True))


def test_random_crops_are_windows_that_change_with_the_epoch(folder: pathlib.Path) -> None:
    batches = FileBatches(folder_files(folder), 12, image_size=7, random_crop=True, mean=0, std=1 / 255, workers=0)
    epochs = [next(batches.epoch(e)).images.round().byte() for e in range(6)]
    assert len({e.numpy().tobytes() for e in epochs}) == 6
    tops = set()
    for row, path in enumerate(batches.files.paths):
        whole = Image.open(path).convert("RGB")
        scale = 8 / min(whole.size)
        sides = [round(whole.height * scale), round(whole.width * scale)]
        resized: Any = reference.resize(whole, sides)  # type: ignore[arg-type]
        windows = reference.pil_to_tensor(resized).unfold(1, 7, 1).unfold(2, 7, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        for images in epochs:
            (place, *_) = (windows == images[row]).flatten(1).all(1).nonzero()[:, 0].tolist()
            tops.add((place // (sides[1] - 6), sides[0] - 7))
    assert (0, 1) in tops
    assert (1, 1) in tops  # the last of two rows


def test_broken_images_are_named_together(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path)
    files = sorted(tmp_path.rglob("*.png"))
    for path in (files[0], files[2], files[-1]):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="3 images cannot be read, take them out: ") as caught:
        load(f"folder:{tmp_path}", image_size=8)
    assert all(str(path) in str(caught.value) for path in (files[0], files[2], files[-1]))
    for path in files:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{len(files)} images cannot .*; and {len(files) - 5} more$"):
        load(f"folder:{tmp_path}", image_size=8)


@pytest.mark.parametrize("workers", [0, 1])
def test_file_batches_name_a_broken_file(tmp_path: pathlib.Path, workers: int) -> None:
    files = folder_files(make_folder(tmp_path))
    (tmp_path / "cat" / "3.png").write_bytes(b"broken")
    batches = FileBatches(files, 5, image_size=8, mean=0.5, std=0.5, workers=workers)
    with pytest.raises(DataError, match=r"cat/3\.png is truncated or no image") as caught:
        list(batches.epoch(0))
    assert "\n" not in str(caught.value)
