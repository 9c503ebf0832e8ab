"""Files of labels: every layout in use, refused contents, and the published files themselves."""

from __future__ import annotations

import gzip
import io
import pathlib
import pickle
import re

import numpy as np
import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.noise.presets import LEVELS

LABELS = torch.tensor([3, 0, 2, 9])


@pytest.mark.parametrize(
    "content",
    [
        LABELS,
        LABELS[:, None].float(),
        LABELS.to(torch.uint8),
        LABELS.numpy(),
        {"only": LABELS.numpy().astype("float32")},
        {"noise_label_train": LABELS, "clean_label_train": LABELS.flip(0), "sel_idx": None},
    ],
    ids=["tensor", "column-of-floats", "bytes", "array", "array-entry", "published"],
)
def test_torch_layouts(tmp_path: pathlib.Path, content: object) -> None:
    torch.save(content, tmp_path / "labels.pt")
    loaded = noise.load_labels(tmp_path / "labels.pt")
    assert loaded.dtype == torch.int64
    assert torch.equal(loaded, LABELS)


def test_numpy_layouts(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "labels.npy", LABELS.numpy()[:, None])
    np.savez(tmp_path / "labels.npz", worse=LABELS.numpy(), clean=LABELS.flip(0).numpy())
    assert torch.equal(noise.load_labels(tmp_path / "labels.npy"), LABELS)
    assert torch.equal(noise.load_labels(tmp_path / "labels.npz", "worse"), LABELS)


def test_saved_labels_come_back(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "labels.pt"
    noise.save_labels(path, LABELS.flip(0))
    noise.save_labels(path, LABELS, clean=LABELS.flip(0))
    assert torch.equal(noise.load_labels(path), LABELS)
    assert torch.equal(noise.load_labels(path, "clean_label_train"), LABELS.flip(0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.pt"]
    with pytest.raises(ValueError, match="must be int64"):
        noise.save_labels(path, LABELS.float())


class Danger:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", {"one": LABELS, "two": LABELS}, "several entries, say which by key; it has one, two"),
        ("a.pt", {"noise_label_train": None, "x": None}, "it has none"),
        ("a.pt", torch.rand(4), "expected whole numbers"),
        ("a.pt", torch.rand(4, 2), r"shape \(N,\)"),
        ("a.pt", {"noise_label_train": "labels"}, "expected a tensor or array"),
        ("a.pt", {"labels": Danger()}, "read safely"),
        ("a.pt", np.array([Danger()], dtype=object), "read safely"),
    ],
)
def test_other_contents_are_refused(tmp_path: pathlib.Path, capsys, name: str, content, message: str) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(ValueError, match=message):
        noise.load_labels(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_other_files_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no label file at .*absent\.pt"):
        noise.load_labels(tmp_path / "absent.pt")
    (tmp_path / "labels.csv").write_text("1\n")
    with pytest.raises(ValueError, match=r"\.pt, \.pth, \.npy or \.npz"):
        noise.load_labels(tmp_path / "labels.csv")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"cut\.pt: not a file"):
        noise.load_labels(tmp_path / "cut.pt")
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"pickled\.npy: not a NumPy file"):
        noise.load_labels(tmp_path / "pickled.npy")
    torch.save(LABELS, tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="the file is one Tensor"):
        noise.load_labels(tmp_path / "plain.pt", key="worse_label")


def _mnist_labels(folder: pathlib.Path) -> torch.Tensor:
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        return torch.frombuffer(bytearray(file.read()[8:]), dtype=torch.uint8).long()


@pytest.mark.realdata
@pytest.mark.parametrize("name", LEVELS[:4])
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_presets_remake_the_published_files(real_data: pathlib.Path, dataset: str, name: str) -> None:
    raw, folder, stem = {
        "mnist": ("mnist/MNIST/raw", "MNIST", "MNIST"),
        "fashion-mnist": ("fashion-mnist/FashionMNIST/raw", "Fashion_MNIST", "Fashion"),
    }[dataset]
    clean = _mnist_labels(real_data / raw)
    file = real_data / f"noise-labels/fdiv/{folder}/{stem}_noise_r0_{1 + LEVELS.index(name)}.pt"
    published = noise.confusion(clean, noise.load_labels(file), 10)
    ours = noise.confusion(clean, noise.corrupt(clean, noise.preset(name, dataset), method="exact"), 10)
    # the published counts are cut to whole numbers off the diagonal, ours are rounded
    off = ~torch.eye(10, dtype=torch.bool)
    assert float((published - ours)[off].abs().max()) <= 1
    assert float((published - ours).abs().max()) <= 9


@pytest.mark.realdata
def test_every_published_file_loads(real_data: pathlib.Path) -> None:
    files = sorted((real_data / "noise-labels/fdiv").rglob("*_noise_*.pt"))
    assert len(files) == 22
    for file in files:
        labels = noise.load_labels(file)
        assert labels.shape == (60_000 if "MNIST" in file.parent.name else 50_000,)
        assert int(labels.max()) == (99 if "CIFAR-100" in file.parent.name else 9)
        assert int(labels.min()) == 0


@pytest.mark.realdata
def test_cifar10n_loads_by_key(real_data: pathlib.Path) -> None:
    file = real_data / "noise-labels/cifar-10n/CIFAR-10_human.pt"
    worse = noise.describe(noise.load_labels(file, "worse_label"), noise.load_labels(file, "clean_label"))
    assert worse.rate == pytest.approx(0.4021, abs=5e-4)  # Wei et al. 2022, table 1
    with pytest.raises(ValueError, match="it has clean_label, aggre_label, worse_label"):
        noise.load_labels(file)


def damaged() -> dict[str, bytes]:
    """A label file of each kind, damaged in many ways."""
    files = {}
    for kind in ("pt", "npy", "npz"):
        whole = io.BytesIO()
        if kind == "pt":
            torch.save({"noise_label_train": torch.arange(1000)}, whole)
        elif kind == "npy":
            np.save(whole, np.arange(1000))
        else:
            np.savez_compressed(whole, labels=np.arange(1000))
        content = whole.getvalue()
        for cut in (0, 1, 40, 100, len(content) // 2, len(content) - 30, len(content) - 1):
            files[f"cut{cut}.{kind}"] = content[:cut]
        for name, other in {"text": b"hello", "csv": b"3\n4\n5\n", "zeros": bytes(500), "html": b"<html>" * 9}.items():
            files[f"{name}.{kind}"] = other
        files[f"half-zero.{kind}"] = content[: len(content) // 2] + bytes(len(content) // 2)
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    files["long-header.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    return files


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_a_value_error_that_names_the_file(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_bytes(damaged()[name])
    if name == "half-zero.npy":  # a plain array has no checksum: other numbers are as good as these
        assert len(noise.load_labels(tmp_path / name)) == 1000
        return
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as refused:
        noise.load_labels(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        torch.arange(4).to_sparse(),
        torch.empty(4, dtype=torch.int64, device="meta"),
        torch.tensor([1.0, float("nan")]),
        torch.tensor([1.0, float("inf")]),
        torch.tensor([2.0**70]),
        torch.tensor([True, False]),
        [10**30],
        ["3", "4"],
        None,
    ],
)
def test_odd_contents_are_a_value_error(tmp_path: pathlib.Path, content) -> None:
    torch.save({"noise_label_train": content, "other": 1}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        noise.load_labels(tmp_path / "a.pt", "noise_label_train")
