from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from robustvision_core.data import load
from robustvision_core.errors import DataError, UserError


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path: pathlib.Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("shape", "options", "to_nchw"),
    [
        ((6, 5, 4), {}, lambda x: x[:, None]),
        ((6, 3, 5, 4), {}, lambda x: x),
        ((6, 5, 4, 3), {}, lambda x: x.transpose(0, 3, 1, 2)),
        ((6, 5, 4, 1), {}, lambda x: x.transpose(0, 3, 1, 2)),
        ((6, 3, 4, 3), {"layout": "nhwc"}, lambda x: x.transpose(0, 3, 1, 2)),
        ((6, 3, 4, 3), {"layout": "nchw"}, lambda x: x),
        ((6, 5, 4, 2), {"layout": "nhwc"}, lambda x: x.transpose(0, 3, 1, 2)),
    ],
)
def test_layouts(tmp_path: pathlib.Path, shape: tuple[int, ...], options: dict[str, Any], to_nchw: Any) -> None:
    x = pixels(*shape)
    data = load(save(tmp_path / "a.npz", images=x, labels=np.arange(6) % 3), **options)
    np.testing.assert_array_equal(data.images.numpy(), to_nchw(x))
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "keys", [("x_{}", "y_{}"), ("images_{}", "labels_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_targets")]
)
def test_splits(tmp_path: pathlib.Path, keys: tuple[str, str]) -> None:
    arrays = {}
    for start, name in enumerate(("train", "val", "test")):
        arrays[keys[0].format(name)] = pixels(3, 2, 2) // 2 + start
        arrays[keys[1].format(name)] = np.array([[start], [0], [1]], dtype=np.int32)
    where = save(tmp_path / "a.npz", **arrays)
    for start, name in enumerate(("train", "val", "test")):
        data = load(where, name)
        np.testing.assert_array_equal(data.images[:, 0].numpy(), arrays[keys[0].format(name)])
        assert data.labels.tolist() == [start, 0, 1]
        assert data.num_classes == 3  # of all splits together


def test_class_names(tmp_path: pathlib.Path) -> None:
    where = save(tmp_path / "a.npz", x=pixels(2, 2, 2), y=np.array([0, 1]), classes=np.array(["cat", "dog", "owl"]))
    assert load(where).classes == ("cat", "dog", "owl")


GOOD = {"images": pixels(2, 4, 4), "labels": np.array([0, 1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": pixels(2, 4, 4).astype(np.float32)}, r"images is \(2, 4, 4\) float32: expected uint8 \(N, H, W\)"),
        ({"images": pixels(2, 4)}, r"images is \(2, 4\) uint8: expected uint8"),
        ({"images": pixels(2, 5, 4, 6)}, r"is \(2, 5, 4, 6\) uint8: cannot tell its channels"),
        ({"images": pixels(2, 3, 4, 3)}, "cannot tell its channels, give layout nchw or nhwc"),
        ({"labels": np.array([0.0, 1.0])}, r"labels is \(2,\) float64: expected integers"),
        ({"labels": np.eye(2, dtype=np.int64)}, r"labels is \(2, 2\) int64: expected integers \(N,\) or \(N, 1\)"),
        ({"labels": np.array([0])}, "2 images but 1 labels"),
        ({"labels": np.array([0, -2])}, "label -2 names no class"),
        ({"classes": np.array(["one"])}, "label 1 names no class"),
        ({"images": np.array([{"a": 1}, None], dtype=object)}, "images cannot be read: Object arrays cannot"),
    ],
)
def test_wrong_contents(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(save(tmp_path / "a.npz", **(GOOD | change)))
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_files(tmp_path: pathlib.Path) -> None:
    where = save(tmp_path / "a.npz", **GOOD)
    with pytest.raises(DataError, match=r"has no images_test: found images, labels; expected images \(or x_train"):
        load(where, "test")
    with pytest.raises(DataError, match=r"has no images_train: found a"):
        load(save(tmp_path / "b.npz", a=np.zeros(1)))
    with pytest.raises(DataError, match="there is no file"):
        load(f"npz:{tmp_path}/none.npz")
    with pytest.raises(UserError, match="unknown layout 'hwc'"):
        load(where, layout="hwc")
    with pytest.raises(UserError, match="data set 'npz' is written npz:PATH"):
        load("npz")


def test_other_files_are_no_npz(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "bare.npy", pixels(2, 2, 2))
    with pytest.raises(DataError, match="holds one bare array"):
        load(f"npz:{tmp_path}/bare.npy")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text\.npz is truncated or no \.npz file"):
        load(f"npz:{tmp_path}/text.npz")
    whole = tmp_path / "a.npz"
    np.savez(whole, **GOOD)
    raw = bytearray(whole.read_bytes())
    whole.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"a\.npz is truncated or no \.npz file"):
        load(f"npz:{whole}")
    np.savez_compressed(whole, images=pixels(50, 9, 9), labels=np.zeros(50, dtype=np.int64))
    raw = bytearray(whole.read_bytes())
    raw[1500:1600] = bytes(100)
    whole.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npz: images cannot be read"):
        load(f"npz:{whole}")


def test_a_file_elsewhere_is_not_unpickled(tmp_path: pathlib.Path) -> None:
    torch.save({"images": 1}, tmp_path / "a.npz")  # a zip archive too, with pickles inside
    with pytest.raises(DataError, match="has no images_train"):
        load(f"npz:{tmp_path}/a.npz")
