from __future__ import annotations

import bz2
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from robustvision_core.data import load
from robustvision_core.errors import DataError
from scipy import io


def write_svhn(path: pathlib.Path, **change: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 11), dtype=np.uint8)
    y = np.arange(11)[:, None] % 10 + 1
    held = {"X": x, "y": y} | change
    io.savemat(path, {key: value for key, value in held.items() if value is not None})
    return x, y


def usps_line(label: int, values: np.ndarray[Any, Any]) -> str:
    return f"{label} " + " ".join(f"{i}:{v:.6g}" for i, v in enumerate(values, 1)) + " "


def usps_file(count: int = 5) -> tuple[str, np.ndarray[Any, Any]]:
    values = np.random.default_rng(0).uniform(-1, 1, (count, 256)).round(6)
    return "\n".join(usps_line(i % 10 + 1, row) for i, row in enumerate(values)) + "\n", values


@pytest.mark.parametrize("place", ["svhn", ""])
def test_svhn_agrees_with_torchvision(tmp_path: pathlib.Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    write_svhn(tmp_path / place / "test_32x32.mat")
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
    theirs = datasets.SVHN(tmp_path / place, split="test")
    ours = load("svhn", "test", tmp_path)
    np.testing.assert_array_equal(ours.images.numpy(), theirs.data)
    np.testing.assert_array_equal(ours.labels.numpy(), theirs.labels)
    assert ours.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, r"X is NoneType, expected \(32, 32, 3, N\) uint8"),
        ({"X": np.zeros((32, 32, 3, 11))}, r"X is \(32, 32, 3, 11\) float64"),
        ({"y": np.ones((4, 1))}, r"y is \(4, 1\) float64, expected \(11, 1\) numbers"),
        ({"y": np.zeros((11, 1))}, r"y holds 0..0, expected 1..10"),
    ],
)
def test_svhn_of_wrong_contents(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    write_svhn(tmp_path / "train_32x32.mat", **change)
    with pytest.raises(DataError, match=message):
        load("svhn", root=tmp_path)


def test_svhn_broken_or_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"svhn: found no train_32x32\.mat under .*--download"):
        load("svhn", root=tmp_path)
    path = tmp_path / "train_32x32.mat"
    write_svhn(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train_32x32\.mat is truncated or no MATLAB file"):
        load("svhn", root=tmp_path)


def test_usps_agrees_with_torchvision(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    text, values = usps_file(20)
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress(text.encode()))
    monkeypatch.setattr("torchvision.datasets.usps.download_url", lambda *_, **__: None)
    theirs = datasets.USPS(tmp_path, train=False, download=True)
    ours = load("usps", "test", tmp_path)
    assert ours.labels.tolist() == theirs.targets
    # torchvision rounds down, so that white would be reached by exactly 1 alone
    assert np.abs(ours.images[:, 0].numpy().astype(int) - theirs.data).max() <= 1
    expected = (torch.from_numpy(values) + 1) / 2
    assert (ours.images.double().flatten(1) / 255 - expected).abs().max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds a table \(0,\), expected a label and 256 numbered values a line"),
        ("1 1:0 2:0\n", r"holds a table \(1, 5\)"),
        ("1 1:0\n1 1:0 2:0\n", "is truncated or no USPS file"),
        ("a b:c\n", "is truncated or no USPS file"),
        (usps_line(1, np.full(256, 2.0)), "holds a value of 2, expected -1 to 1"),
        (usps_line(1, np.zeros(256)).replace(" 7:", " 8:"), r"holds a table \(1, 513\)"),
        (usps_line(11, np.zeros(256)), "label 10 names no class"),
    ],
)
def test_usps_of_wrong_contents(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "usps.bz2").write_bytes(bz2.compress(text.encode()))
    with pytest.raises(DataError, match=message) as caught:
        load("usps", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_usps_broken_or_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"usps: found no usps\.bz2 under .*--download"):
        load("usps", root=tmp_path)
    raw = bz2.compress(usps_file()[0].encode())
    for content in (raw[: len(raw) // 2], b"no bz2"):
        (tmp_path / "usps.bz2").write_bytes(content)
        with pytest.raises(DataError, match=r"usps\.bz2 is truncated or no USPS file"):
            load("usps", root=tmp_path)
