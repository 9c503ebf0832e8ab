from __future__ import annotations

import io
import pathlib
import pickle
import struct
import tarfile
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from robustvision_core.data import ImageSet, load
from robustvision_core.data.reading.plain_pickle import load_plain
from robustvision_core.errors import DataError
from torch import Tensor

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
Files = dict[str, bytes]


def python2_pickle(value: Any) -> bytes:
    """A pickle as Python 2 with an old NumPy writes it, which the official files are."""
    out = io.BytesIO()

    def text(raw: bytes) -> None:
        out.write((b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<I", len(raw))) + raw)

    def number(n: int) -> None:
        out.write(b"J" + struct.pack("<i", n))

    def write(item: Any) -> None:
        if isinstance(item, dict):
            out.write(b"}(")
            for key, value in item.items():
                write(key)
                write(value)
            out.write(b"u")
        elif isinstance(item, list):
            out.write(b"](")
            for value in item:
                write(value)
            out.write(b"e")
        elif isinstance(item, bytes):
            text(item)
        elif isinstance(item, int):
            number(item)
        else:
            fortran = item.flags.f_contiguous and not item.flags.c_contiguous
            out.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(")
            number(0)
            out.write(b"t")
            text(b"b")
            out.write(b"tR(")
            number(1)
            out.write(b"(")
            for side in item.shape:
                number(side)
            out.write(b"tcnumpy\ndtype\n(")
            text(item.dtype.str[1:].encode())
            out.write(b"I0\nI1\ntR(")
            number(3)
            text(b"|")
            out.write(b"NNN")
            for _ in range(3):
                number(-1 if _ < 2 else 0)
            out.write(b"tb" + (b"I01\n" if fortran else b"I00\n"))
            text(item.tobytes("F" if fortran else "C"))
            out.write(b"tb")

    out.write(b"\x80\x02")
    write(value)
    return out.getvalue() + b"."


def arrays(count: int, classes: int, seed: int) -> tuple[np.ndarray[Any, Any], list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, classes, count).tolist()


def binary(heads: list[list[int]], pixels: np.ndarray[Any, Any]) -> bytes:
    return b"".join(bytes(head) + row.tobytes() for head, row in zip(heads, pixels, strict=True))


def cifar10_files() -> dict[str, tuple[str, str, Files]]:
    python: Files = {"batches.meta": python2_pickle({b"label_names": [n.encode() for n in NAMES10]})}
    records: Files = {"batches.meta.txt": ("\n".join(NAMES10) + "\n\n").encode()}
    for i, name in enumerate(
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    ):
        x, y = arrays(2, 10, i)
        python[name] = python2_pickle(
            {b"batch_label": b"a batch", b"labels": y, b"data": x, b"filenames": [b"a.png"] * 2}
        )
        records[f"{name}.bin"] = binary([[label] for label in y], x)
    return {
        "python": ("cifar-10-batches-py", "cifar-10-python.tar.gz", python),
        "binary": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", records),
    }


def cifar100_files() -> dict[str, tuple[str, str, Files]]:
    fine = [f"fine_{i}" for i in range(100)]
    coarse = [f"coarse_{i}" for i in range(20)]
    names = {b"fine_label_names": [n.encode() for n in fine], b"coarse_label_names": [n.encode() for n in coarse]}
    python: Files = {"meta": python2_pickle(names)}
    records: Files = {
        "fine_label_names.txt": "\n".join(fine).encode(),
        "coarse_label_names.txt": "\n".join(coarse).encode(),
    }
    for i, name in enumerate(["train", "test"]):
        x, y = arrays(4, 100, i)
        python[name] = python2_pickle({b"data": x, b"fine_labels": y, b"coarse_labels": [label // 5 for label in y]})
        records[f"{name}.bin"] = binary([[label // 5, label] for label in y], x)
    return {
        "python": ("cifar-100-python", "cifar-100-python.tar.gz", python),
        "binary": ("cifar-100-binary", "cifar-100-binary.tar.gz", records),
    }


def place(root: pathlib.Path, folder: str, archive: str, files: Files, packed: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if not packed:
        (root / folder).mkdir()
        for name, raw in files.items():
            (root / folder / name).write_bytes(raw)
        return
    with tarfile.open(root / archive, "w:gz") as tar:
        for name, raw in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


def expect(data: ImageSet, parts: list[tuple[np.ndarray[Any, Any], list[int]]]) -> None:
    np.testing.assert_array_equal(data.images.reshape(-1, 3072).numpy(), np.concatenate([x for x, _ in parts]))
    assert data.labels.tolist() == [label for _, y in parts for label in y]
    assert data.shape == (3, 32, 32)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("below", ["", "cifar-10"])
def test_cifar10_in_every_official_form(tmp_path: pathlib.Path, form: str, packed: bool, below: str) -> None:
    place(tmp_path / below, *cifar10_files()[form], packed)
    expect(load("cifar-10", "train", tmp_path), [arrays(2, 10, i) for i in range(5)])
    test = load("cifar-10", "test", tmp_path)
    expect(test, [arrays(2, 10, 5)])
    assert test.classes == tuple(NAMES10)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_in_every_official_form(tmp_path: pathlib.Path, form: str, packed: bool, coarse: bool) -> None:
    place(tmp_path, *cifar100_files()[form], packed)
    for i, split in enumerate(("train", "test")):
        x, y = arrays(4, 100, i)
        data = load("cifar-100", split, tmp_path, coarse=coarse)
        expect(data, [(x, [label // 5 for label in y] if coarse else y)])
        assert data.classes == tuple(f"coarse_{i}" if coarse else f"fine_{i}" for i in range(20 if coarse else 100))


def test_agrees_with_torchvision(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    place(tmp_path, *cifar10_files()["python"], packed=False)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, for the old form of the pickled type
        theirs = datasets.CIFAR10(tmp_path)
    ours = load("cifar-10", root=tmp_path)
    np.testing.assert_array_equal(ours.images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert ours.labels.tolist() == theirs.targets


def test_cifar10_npz(tmp_path: pathlib.Path) -> None:
    x, y = arrays(4, 10, 0)
    nhwc = x.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    (tmp_path / "cifar-10").mkdir()
    np.savez(
        tmp_path / "cifar-10" / "cifar10.npz",
        x_train=nhwc, y_train=y, x_test=nhwc[:1], y_test=y[:1], classes=np.array(NAMES10),
    )  # fmt: skip
    expect(load("cifar-10", "train", tmp_path), [(x, y)])
    expect(load("cifar-10", "test", tmp_path), [(x[:1], y[:1])])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_this_numpy_and_python(protocol: int) -> None:
    x, y = arrays(2, 10, 0)
    value = {b"data": x.astype(np.uint8), "labels": y, b"words": [b"a", "b", (1, 2.5)]}
    if protocol == 5:
        with pytest.raises(DataError, match="_frombuffer, which plain data does not need"):
            load_plain(pickle.dumps(value, protocol), "p")
        return
    loaded = load_plain(pickle.dumps(value, protocol), "p")
    np.testing.assert_array_equal(loaded.pop(b"data").numpy(), x)
    assert loaded == {"labels": y, b"words": [b"a", "b", (1, 2.5)]}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), (2, 3, 4)])
def test_pickled_arrays_in_both_orders(shape: tuple[int, ...], order: Any) -> None:
    x = np.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), order=order)
    for raw in (pickle.dumps(x, 4), python2_pickle(x)):
        loaded = load_plain(raw, "p")
        assert isinstance(loaded, Tensor)
        np.testing.assert_array_equal(loaded.numpy(), x)


class Attack:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_pickles_cannot_run_code(tmp_path: pathlib.Path) -> None:
    sign = tmp_path / "it-ran"
    attacks = [
        Attack(eval, f"open({str(sign)!r}, 'w')"),
        Attack(open, str(sign), "w"),
        Attack(getattr, "x", "upper"),
        Attack(torch.zeros, 3),
        Attack(np.memmap, str(sign), "u1", "w+", 0, (1,)),
        Attack(np.load, str(sign)),
    ]
    for attack in attacks:
        for raw in (pickle.dumps(attack), pickle.dumps({b"data": attack}), pickle.dumps([attack], 0)):
            with pytest.raises(DataError, match=r"p is refused: it asks for .*, which plain data does not need"):
                load_plain(raw, "p")
    assert not sign.exists()


def test_a_poisoned_batch_is_named_and_does_nothing(tmp_path: pathlib.Path) -> None:
    sign = tmp_path / "it-ran"
    folder, archive, files = cifar10_files()["python"]
    files["data_batch_3"] = pickle.dumps({b"data": Attack(open, str(sign), "w"), b"labels": [1]})
    place(tmp_path, folder, archive, files, packed=True)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: data_batch_3 is refused: it asks for .*open") as e:
        load("cifar-10", root=tmp_path)
    assert "\n" not in str(e.value)
    assert not sign.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3072), dtype=np.float32), "an array of type 'f4', expected unsigned bytes"),
        (np.array([{}]), "an array of type 'O8'"),
        (set("ab"), "it asks for .*set"),
        (np.float64(3), "it asks for numpy.*scalar"),
    ],
)
def test_other_objects_are_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_plain(pickle.dumps(value, 2), "p")


def test_damaged_pickles_are_named() -> None:
    x, y = arrays(2, 10, 0)
    raw = python2_pickle({b"data": x, b"labels": y})
    for end in (0, 1, 20, 200, len(raw) - 1):
        with pytest.raises(DataError, match="p is truncated or no pickle"):
            load_plain(raw[:end], "p")
    short = python2_pickle({b"data": x}).replace(struct.pack("<i", 3072), struct.pack("<i", 3073), 1)
    with pytest.raises(DataError, match=r"an array of shape \(2, 3073\) with 6144 bytes"):
        load_plain(short, "p")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "data_batch_2 holds list, expected a dict"),
        ({b"labels": [1]}, "data_batch_2 has no data: found b'labels'"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "data_batch_2 has no labels: found b'data'"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}, r"data is \(1, 3071\) uint8, expected \(N, 3072\)"),
        ({b"data": b"bytes", b"labels": [1]}, "data is bytes, expected"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "2 images but 1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"a"]}, "labels is list, expected a list of integers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "label 10 names no class"),
    ],
)
def test_wrong_batches(tmp_path: pathlib.Path, batch: Any, message: str) -> None:
    folder, archive, files = cifar10_files()["python"]
    place(tmp_path, folder, archive, files | {"data_batch_2": python2_pickle(batch)}, packed=False)
    with pytest.raises(DataError, match=message):
        load("cifar-10", root=tmp_path)


def test_incomplete_and_truncated_releases(tmp_path: pathlib.Path) -> None:
    folder, archive, files = cifar10_files()["binary"]
    last = files.pop("data_batch_5.bin")
    place(tmp_path / "a", folder, archive, files, packed=True)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz has no data_batch_5\.bin"):
        load("cifar-10", root=tmp_path / "a")
    place(tmp_path / "b", folder, archive, files | {"data_batch_5.bin": last[:-1]}, packed=False)
    with pytest.raises(DataError, match=r"data_batch_5\.bin is truncated: 6145 bytes, expected a multiple of 3073"):
        load("cifar-10", root=tmp_path / "b")
    place(tmp_path / "c", folder, archive, files, packed=True)
    whole = tmp_path / "c" / archive
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is truncated"):
        load("cifar-10", root=tmp_path / "c")


def test_archive_members_outside_are_refused(tmp_path: pathlib.Path) -> None:
    folder, archive, files = cifar10_files()["binary"]
    place(tmp_path, folder, archive, files | {"../../evil": b""}, packed=True)
    with pytest.raises(DataError, match=r"its member 'cifar-10-batches-bin/../../evil' would land outside"):
        load("cifar-10", root=tmp_path)


def test_missing_says_what_and_where(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"found no cifar-10-batches-py, cifar-10-python.tar.gz, cifar10.npz under"):
        load("cifar-10", root=tmp_path)
    with pytest.raises(DataError, match=r"cifar-100: found no .*--download.*put it in"):
        load("cifar-100", root=tmp_path)


def test_download_goes_through_torchvision(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def fetch(folder: pathlib.Path, download: bool) -> None:
        assert download
        place(folder, *cifar10_files()["python"], packed=True)

    monkeypatch.setattr(datasets, "CIFAR10", fetch)
    assert len(load("cifar-10", root=tmp_path, download=True)) == 10

    def fail(folder: pathlib.Path, download: bool) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"the download to .* failed: no network"):
        load("cifar-10", root=tmp_path / "other", download=True)


@pytest.mark.realdata
def test_real_cifar10_npz(real_data: pathlib.Path) -> None:
    if not (real_data / "cifar-10" / "cifar10.npz").exists():
        pytest.skip("needs cifar-10/cifar10.npz")
    train, test = load("cifar-10", root=real_data), load("cifar-10", "test", real_data)
    assert train.class_counts().tolist() == [5000] * 10
    assert test.class_counts().tolist() == [1000] * 10
    assert train.classes == tuple(NAMES10)
    assert train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # of the official data_batch_1
    means = (train.images.double() / 255).mean((0, 2, 3))  # published: 0.4914, 0.4822, 0.4465
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=0.003)
