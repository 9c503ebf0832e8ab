"""USPS in the other files that it goes around in."""

from __future__ import annotations

import bz2
import gzip
import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from robustvision_core.data import load
from robustvision_core.errors import DataError

VALUES = np.random.default_rng(0).uniform(-1, 1, (12, 256)).round(4)
DIGITS = np.arange(12) % 10


def table(digits: Any = DIGITS, values: Any = VALUES) -> str:
    return "".join(
        f"{d:.4f} " + " ".join(f"{v:.4f}" for v in row) + " \n" for d, row in zip(digits, values, strict=True)
    )


@pytest.mark.parametrize("place", ["usps", ""])
@pytest.mark.parametrize("packed", [True, False])
def test_zip_tables_hold_what_the_libsvm_files_hold(tmp_path: pathlib.Path, place: str, packed: bool) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    raw = table().encode()
    file = tmp_path / place / ("zip.test.gz" if packed else "zip.test")
    file.write_bytes(gzip.compress(raw) if packed else raw)
    images = load("usps", "test", tmp_path)
    assert images.labels.tolist() == DIGITS.tolist()
    expected = (torch.from_numpy(VALUES) + 1) / 2
    assert (images.images.double().flatten(1) / 255 - expected).abs().max() <= 0.5 / 255 + 1e-9
    lines = (
        f"{d + 1} " + " ".join(f"{i}:{v}" for i, v in enumerate(row, 1)) for d, row in zip(DIGITS, VALUES, strict=True)
    )
    (tmp_path / "usps.t.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    file.unlink()
    assert torch.equal(load("usps", "test", tmp_path).images, images.images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds a table \(0,\), expected a digit and 256 values a line"),
        ("1 2 3\n", r"holds a table \(1, 3\)"),
        ("1 2\n1\n", "is truncated or no USPS file"),
        ("a b\n", "is truncated or no USPS file"),
        (table(values=VALUES * 2), r"holds values from -1\.\d+ to 1\.\d+, expected -1 to 1"),
        (table(values=VALUES * np.nan), "holds values from nan to nan"),
        (table(digits=DIGITS + 1), "holds a label that is no digit"),
        (table(digits=DIGITS + 0.5), "holds a label that is no digit"),
    ],
)
def test_zip_tables_of_wrong_contents(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "zip.train.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=message) as caught:
        load("usps", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_zip_tables_cut_short(tmp_path: pathlib.Path) -> None:
    raw = gzip.compress(table().encode())
    (tmp_path / "zip.train.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"zip\.train\.gz is truncated or no USPS file"):
        load("usps", root=tmp_path)


class FakeFile(dict):
    """An HDF5 file as far as the reader asks: groups of arrays."""

    def __init__(self, path: pathlib.Path, mode: str) -> None:
        digits = {"data": (VALUES + 1) / 2, "target": DIGITS}
        super().__init__(test=digits, train={"data": VALUES[:, :9], "target": DIGITS})

    def __enter__(self) -> FakeFile:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_h5_by_its_layout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usps.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=FakeFile))
    images = load("usps", "test", tmp_path)
    (tmp_path / "zip.test").write_text(table())
    assert (images.images.int() - load("usps", "test", tmp_path).images.int()).abs().max() <= 1
    assert images.labels.tolist() == DIGITS.tolist()
    with pytest.raises(DataError, match=r"train holds \(12, 9\) float64 and \(12,\) int64, expected \(N, 256\)"):
        load("usps", "train", tmp_path)


def test_h5_without_its_reader_says_what_to_install(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usps.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py: pip install h5py, or give zip\.train\.gz"):
        load("usps", "train", tmp_path)
