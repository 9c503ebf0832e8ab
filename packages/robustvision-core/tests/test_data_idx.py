from __future__ import annotations

import gzip
import pathlib
import struct

import pytest
import torch
from robustvision_core.data import load
from robustvision_core.data.sources.idx import read_idx
from robustvision_core.errors import DataError
from torch import Tensor

FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def idx_bytes(array: Tensor, kind: int = 8) -> bytes:
    shape = array.shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + bytes(array.flatten().tolist())


def write_split(folder: pathlib.Path, prefix: str, images: Tensor, labels: Tensor, zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        raw = idx_bytes(array)
        path = folder / f"{prefix}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(raw) if zipped else raw)


@pytest.fixture
def arrays() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 256, (7, 5, 4), dtype=torch.uint8), torch.arange(7, dtype=torch.uint8)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", ["{name}/{folder}/raw", "{folder}/raw", "{name}/raw", "{name}"])
@pytest.mark.parametrize("name", FOLDERS)
def test_reads_every_layout(
    tmp_path: pathlib.Path, arrays: tuple[Tensor, Tensor], name: str, layout: str, zipped: bool
) -> None:
    images, labels = arrays
    folder = tmp_path / layout.format(name=name, folder=FOLDERS[name])
    write_split(folder, "train", images, labels, zipped)
    write_split(folder, "t10k", images.flip(0), labels.flip(0), zipped)
    train, test = load(name, "train", tmp_path), load(name, "test", tmp_path)
    assert torch.equal(train.images[:, 0], images)
    assert torch.equal(test.images[:, 0], images.flip(0))
    assert train.labels.tolist() == labels.tolist()
    assert train.num_classes == 10


def test_empty_array(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(struct.pack(">BBBBII", 0, 0, 8, 2, 0, 3))
    assert read_idx(path).shape == (0, 3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with nothing: expected an IDX file of unsigned bytes"),
        (b"\x89PNG\r\n", "starts with 89 50 4e 47"),
        (struct.pack(">BBBBI", 0, 0, 13, 1, 1) + bytes(4), "starts with 00 00 0d 01"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(3), r"is truncated: 11 bytes, its header \(5,\) asks for 13"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(9), r"is too long: 17 bytes, its header \(5,\) asks for 13"),
        (struct.pack(">BBBBI", 0, 0, 8, 3, 5), "is truncated: 8 bytes"),
    ],
)
def test_wrong_files_are_named(tmp_path: pathlib.Path, raw: bytes, message: str) -> None:
    path = tmp_path / "some-idx"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 30, -4])
def test_truncated_or_false_gzip_is_named(tmp_path: pathlib.Path, cut: int) -> None:
    path = tmp_path / "some-idx.gz"
    whole = gzip.compress(idx_bytes(torch.randint(0, 256, (50,), dtype=torch.uint8)))
    path.write_bytes(whole[:cut] if cut else b"no gzip at all")
    with pytest.raises(DataError, match="is truncated or not a gzip file") as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file_names_root_and_remedy(tmp_path: pathlib.Path, arrays: tuple[Tensor, Tensor]) -> None:
    write_split(tmp_path / "mnist", "train", *arrays)
    with pytest.raises(DataError, match=r"found no t10k-images-idx3-ubyte\[.gz\] under .*--download.*--data-root") as e:
        load("mnist", "test", tmp_path)
    assert str(tmp_path) in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(DataError, match="no such folder"):
        load("mnist", "test", tmp_path / "nowhere")


def test_images_and_labels_must_match(tmp_path: pathlib.Path, arrays: tuple[Tensor, Tensor]) -> None:
    images, labels = arrays
    write_split(tmp_path / "mnist", "train", images, labels[:5])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte holds labels \(5,\) for 7 images"):
        load("mnist", root=tmp_path)
    write_split(tmp_path / "mnist", "train", images, torch.full((7,), 10, dtype=torch.uint8))
    with pytest.raises(DataError, match="mnist/train: label 10 names no class"):
        load("mnist", root=tmp_path)
    write_split(tmp_path / "mnist", "train", images[0], labels)
    with pytest.raises(DataError, match=r"holds 2 dimensions \(5, 4\): expected \(N, H, W\)"):
        load("mnist", root=tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_agrees_with_torchvision(real_data: pathlib.Path, tmp_path: pathlib.Path, name: str, split: str) -> None:
    from torchvision import datasets

    ours = load(name, split, real_data)
    raw = tmp_path / FOLDERS[name] / "raw"
    raw.mkdir(parents=True)
    for packed in (real_data / name / FOLDERS[name] / "raw").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    theirs = getattr(datasets, FOLDERS[name])(tmp_path, train=split == "train")
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
    assert [c.lower() for c in ours.classes] == [c.split(" - ")[0].lower() for c in theirs.classes]
