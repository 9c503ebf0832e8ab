from __future__ import annotations

import io
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import load
from robustvision_core.data.reading.archives import read_members
from robustvision_core.errors import DataError

Files = dict[str, bytes]


def encoded(seed: int, size: int, suffix: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert("1") if suffix == "png" else image).save(out, "png" if suffix == "png" else "jpeg")
    return out.getvalue()


def omniglot_files(folder: str) -> Files:
    spots = [(a, c, d) for a in ("Greek", "Latin") for c in (1, 2) for d in (1, 2, 3)]
    return {
        f"{folder}/{a}/character{c:02d}/{i:04d}_{d:02d}.png": encoded(i, 15, "png") for i, (a, c, d) in enumerate(spots)
    }


def tiny_files() -> Files:
    wnids = ["n02", "n01", "n03"]
    files: Files = {
        "wnids.txt": "\n".join(wnids).encode(),
        "words.txt": b"n01\tcat, house cat\nn02\tdog\nn99\tother\n",
        "miniimagenet_split.csv": b'wnid,miniimagenet_split,words\nn02,train,dog\nn01,val,"cat, x"\nn03,test,x\n',
        "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\nval_1.JPEG\tn03\t0\t0\nval_2.JPEG\tn02\t0\t0\n",
    }
    for label, wnid in enumerate(wnids):
        for i in (0, 2, 10):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = encoded(20 * label + i, 16, "jpeg")
        files[f"val/images/val_{label}.JPEG"] = encoded(100 + label, 16, "jpeg")
        files[f"test/images/test_{label}.JPEG"] = b"never read"
    return {f"tiny-imagenet-200/{name}": raw for name, raw in files.items()}


def put(root: pathlib.Path, files: Files, archive: str | None) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if archive is not None:
        with zipfile.ZipFile(root / archive, "w") as packed:
            for name, raw in files.items():
                packed.writestr(name, raw)
        return
    for name, raw in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(raw)


def rgb(raw: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(raw)).convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["omniglot/omniglot-py", "omniglot-py", "omniglot"])
def test_omniglot(tmp_path: pathlib.Path, place: str, packed: bool) -> None:
    for folder in ("images_background", "images_evaluation"):
        put(tmp_path / place, omniglot_files(folder), f"{folder}.zip" if packed else None)
    train = load("omniglot", "train", tmp_path, size=15)
    assert train.classes == ("Greek/character01", "Greek/character02", "Latin/character01", "Latin/character02")
    assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for image, raw in zip(train.images, omniglot_files("images_background").values(), strict=True):
        assert torch.equal(255 - image[0], torch.from_numpy(np.array(Image.open(io.BytesIO(raw)).convert("L"))))
    assert load("omniglot", "test", tmp_path).shape == (1, 28, 28)


def test_omniglot_errors(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"found no images_background\.zip or images_background/ under .*--download"):
        load("omniglot", root=tmp_path)
    with pytest.raises(DataError, match="omniglot: size is 0"):
        load("omniglot", root=tmp_path, size=0)
    files = omniglot_files("images_background")
    files["images_background/Greek/character01/0000_01.png"] = b"broken"
    put(tmp_path / "omniglot", files, "images_background.zip")
    with pytest.raises(
        DataError, match=r"images_background\.zip: images_background/Greek/character01/0000_01\.png is tr"
    ):
        load("omniglot", root=tmp_path)
    put(tmp_path / "empty" / "omniglot", {"images_background/readme": b""}, "images_background.zip")
    with pytest.raises(DataError, match=r"images_background\.zip holds no images"):
        load("omniglot", root=tmp_path / "empty")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["tiny-imagenet", ""])
def test_tiny_imagenet(tmp_path: pathlib.Path, place: str, packed: bool) -> None:
    files = tiny_files()
    put(tmp_path / place, files, "tiny-imagenet-3.zip" if packed else None)
    top = "tiny-imagenet-200/"
    train = load("tiny-imagenet", "train", tmp_path, size=16)
    assert train.classes == ("dog", "cat", "n03")  # no word for the last
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(train.images[5], rgb(files[f"{top}train/n01/images/n01_10.JPEG"]))  # 0, 2, 10: by number
    test = load("tiny-imagenet", "test", tmp_path, size=16)
    assert test.labels.tolist() == [1, 2, 0]
    assert torch.equal(test.images[1], rgb(files[f"{top}val/images/val_1.JPEG"]))
    parts = {split: load("tiny-imagenet-few-shot", split, tmp_path, size=16) for split in ("train", "val", "test")}
    assert [part.classes for part in parts.values()] == [("dog",), ("cat",), ("n03",)]
    assert [len(part) for part in parts.values()] == [4, 4, 4]
    assert torch.equal(parts["val"].images[3], rgb(files[f"{top}val/images/val_0.JPEG"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wnids.txt": None}, r"tiny-imagenet-200 has no wnids\.txt"),
        ({"val/images/val_1.JPEG": None}, r"tiny-imagenet-200 has no val/images/val_1\.JPEG"),
        ({"val/images/val_1.JPEG": b"x"}, r"val/images/val_1\.JPEG is truncated or no image"),
        ({"val/val_annotations.txt": b""}, "holds no images for tiny-imagenet/test"),
    ],
)
def test_tiny_imagenet_errors(tmp_path: pathlib.Path, change: dict[str, bytes | None], message: str) -> None:
    files = tiny_files() | {f"tiny-imagenet-200/{name}": raw for name, raw in change.items()}
    put(tmp_path, {name: raw for name, raw in files.items() if raw is not None}, None)
    with pytest.raises(DataError, match=message):
        load("tiny-imagenet", "test", tmp_path)


def test_few_shot_needs_its_split(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"found no tiny-imagenet-200/ or tiny-imagenet\*\.zip under"):
        load("tiny-imagenet-few-shot", root=tmp_path)
    put(tmp_path, tiny_files() | {"tiny-imagenet-200/miniimagenet_split.csv": b"a,b\n1,2\n"}, None)
    with pytest.raises(DataError, match="lacks the columns wnid and miniimagenet_split"):
        load("tiny-imagenet-few-shot", root=tmp_path)


@pytest.mark.realdata
def test_real_omniglot_agrees_with_torchvision(
    real_data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    archive = real_data / "omniglot" / "omniglot-py" / "images_evaluation.zip"
    put(tmp_path / "omniglot-py", read_members(archive, lambda name: "/Angelic/" in name), None)
    monkeypatch.setattr(datasets.Omniglot, "_check_integrity", lambda _: True)
    theirs = datasets.Omniglot(str(tmp_path), background=False)
    ours = load("omniglot", "test", real_data, size=105)
    assert len(theirs) == 400
    assert len(ours) == 13180
    for i in range(0, 400, 7):  # torchvision lists folders in the order of the file system: compare by name
        file, character = theirs._flat_character_images[i]
        label = ours.classes.index(theirs._characters[character])
        row = sorted(name for name, c in theirs._flat_character_images if c == character).index(file)
        image = ours.images[ours.labels == label][row, 0]
        np.testing.assert_array_equal(255 - image.numpy(), np.array(theirs[i][0]))


@pytest.mark.realdata
def test_real_tiny_imagenet(real_data: pathlib.Path) -> None:
    data = load("tiny-imagenet", "test", real_data)
    assert data.class_counts().tolist() == [50] * 25
    assert data.shape == (3, 64, 64)
    assert load("tiny-imagenet-few-shot", "test", real_data).class_counts().tolist() == [550] * 5
