"""Wrong labels: probabilities against Bayes' rule, rankings against self-confidence, and the command."""

from __future__ import annotations

import csv
import pathlib
import tarfile

import numpy
import pytest
import torch
from fdiv_noisy import Sparse, Uniform, label_issues
from fdiv_noisy.cli import main
from fdiv_noisy.estimation.issues import clean_posterior
from fdiv_noisy.estimation.structure import select_structure
from fdiv_noisy.noise import corrupt
from PIL import Image
from robustvision_core.data import load
from torch import Tensor

K = 6


def sample(matrix: Tensor, n: int = 3000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean posteriors of overlapping classes, clean labels drawn from them, noisy labels, noisy posteriors."""
    generator = torch.Generator().manual_seed(seed)
    clean_probs = (3 * torch.randn(n, K, generator=generator)).softmax(1)
    clean = torch.multinomial(clean_probs, 1, generator=generator)[:, 0]
    return clean_probs, clean, corrupt(clean, matrix, generator=generator), clean_probs @ matrix


def average_precision(wrong: Tensor, score: Tensor) -> float:
    hits = wrong[score.argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


PAIRS = Sparse(torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.tensor([[0.7, 0.2]] * 3), K)
CYCLE = 0.7 * torch.eye(K) + 0.3 * torch.eye(K).roll(1, 1)


@pytest.mark.parametrize("noise", [PAIRS, CYCLE], ids=["pairs", "cycle"])
def test_probabilities_are_those_of_bayes_and_calibrated(noise: Sparse | Tensor) -> None:
    matrix = noise if isinstance(noise, Tensor) else noise.matrix()
    clean_probs, clean, labels, probs = sample(matrix)
    found = label_issues(probs, labels, noise)
    joint = clean_probs * matrix[:, labels].T
    expected = 1 - (joint / joint.sum(1, keepdim=True)).gather(1, labels[:, None])[:, 0]
    assert float((found.wrong - expected).abs().mean()) < (
        0.15 if noise is PAIRS else 0.05
    )  # a tenth of the information
    assert float(found.wrong.mean()) == pytest.approx(float((clean != labels).float().mean()), abs=0.03)
    right = float((found.suggested == clean).float().mean())
    assert right > float((labels == clean).float().mean()) + 0.1
    if noise is PAIRS:
        assert right > float((probs.argmax(1) == clean).float().mean()) + 0.3


@pytest.mark.parametrize("noise", [PAIRS, CYCLE], ids=["pairs", "cycle"])
def test_structured_noise_is_ranked_better_than_by_self_confidence(noise: Sparse | Tensor) -> None:
    matrix = noise if isinstance(noise, Tensor) else noise.matrix()
    _, clean, labels, probs = sample(matrix)
    wrong = clean != labels
    own = 1 - probs.gather(1, labels[:, None])[:, 0]
    found = label_issues(probs, labels, noise)
    assert average_precision(wrong, found.wrong) > average_precision(wrong, own) + 0.05
    assert torch.equal(found.wrong[found.order()], found.wrong.sort(descending=True).values)


def test_even_noise_is_ranked_by_self_confidence() -> None:
    noise = Uniform(torch.full((K,), 0.06))
    _, clean, labels, probs = sample(noise.matrix())
    own = 1 - probs.gather(1, labels[:, None])[:, 0]
    for found in (label_issues(probs, labels, noise), label_issues(probs, clean)):
        assert ((found.wrong >= 0) & (found.wrong <= 1)).all()
    ours = average_precision(clean != labels, label_issues(probs, labels, noise).wrong)
    assert ours == pytest.approx(average_precision(clean != labels, own), abs=1e-3)


def test_overlap_that_looks_like_general_noise_is_ranked_by_self_confidence() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([0.0, 1.0, 2.2, 3.0, 9.0, 12.0])  # the first four overlap, and not evenly
    clean = torch.randint(K, (4000,), generator=generator)
    inputs = centres[clean] + torch.randn(4000, generator=generator)
    even = Uniform(torch.full((K,), 0.05)).matrix()
    labels = corrupt(clean, even, generator=generator)
    probs = (-0.5 * (inputs[:, None] - centres).square()).softmax(1) @ even
    found = select_structure(probs, labels)
    assert found.structure == "undecided"  # no class has another label more often than its own beyond chance
    assert "part of the matrix is overlap of classes" in str(found)
    own = 1 - probs.gather(1, labels[:, None])[:, 0]
    ours = average_precision(clean != labels, label_issues(probs, labels).wrong)
    assert ours == pytest.approx(average_precision(clean != labels, own), abs=1e-3)


def test_clean_posterior_inverts_the_noise() -> None:
    clean_probs, _, _, probs = sample(CYCLE, 200)
    found = clean_posterior(probs, CYCLE)
    torch.testing.assert_close(found.sum(1), torch.ones(200))
    torch.testing.assert_close(found @ CYCLE, probs, atol=0.01, rtol=0)
    assert float((found - clean_probs).abs().mean()) < 0.02


def test_wrong_shapes_are_refused() -> None:
    _, _, labels, probs = sample(CYCLE, 50)
    with pytest.raises(ValueError, match="the transition has 4 classes, probs have 6"):
        label_issues(probs, labels, torch.eye(4))
    with pytest.raises(ValueError, match="labels must have shape"):
        label_issues(probs, labels[:3])


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> tuple[list[str], set[str]]:
    """The command on 120 images of two classes with probabilities of its own, and the files whose label is wrong."""
    generator = torch.Generator().manual_seed(0)
    wrong = set()
    for i in range(120):
        kind = i % 2
        given = 1 - kind if i % 10 < 2 else kind
        path = tmp_path / "data" / "train" / "ab"[given] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 60, (16, 16, 3), generator=generator) + 180 * kind
        Image.fromarray(pixels.byte().numpy()).save(path)
        if given != kind:
            wrong.add(str(path))
    files = [*sorted((tmp_path / "data/train/a").iterdir()), *sorted((tmp_path / "data/train/b").iterdir())]
    sure = 0.75 + 0.1 * torch.rand(len(files), generator=generator)
    kinds = torch.tensor([int(file.stem) % 2 for file in files])
    second = torch.where(kinds == 1, sure, 1 - sure)
    torch.save(torch.stack([1 - second, second], 1), tmp_path / "p.pt")
    command = ["issues", "--data", f"folder:{tmp_path / 'data'}", "--out", str(tmp_path / "out"), "--device", "cpu"]
    return [*command, "--probs", str(tmp_path / "p.pt")], wrong


def test_command_finds_wrong_labels_of_a_folder(folder, tmp_path: pathlib.Path, capsys) -> None:
    command, wrong = folder
    assert main(command) == 0
    with open(tmp_path / "out" / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["sample"] for row in rows[: len(wrong)]} == wrong
    assert all(row["suggested"] != row["label"] for row in rows[: len(wrong)])
    assert (tmp_path / "out" / "issues.png").read_bytes().startswith(b"\x89PNG")
    torch.save(torch.rand(3, 2), tmp_path / "bad.pt")
    capsys.readouterr()
    assert main([*command[:-1], str(tmp_path / "bad.pt")]) == 2
    assert "has shape (3, 2), the data needs (120, 2)" in capsys.readouterr().err


def test_tables_of_a_cleaned_folder(folder, tmp_path: pathlib.Path, capsys) -> None:
    command, wrong = folder
    tables = ["--relabel", str(tmp_path / "mended.csv"), "--drop", str(tmp_path / "less/kept.csv")]
    assert main([*command, *tables]) == 0
    said = capsys.readouterr().out
    assert f"{len(wrong)} of 120 labels replaced" in said
    assert f"{len(wrong)} of 120 samples left out" in said
    with open(tmp_path / "mended.csv", newline="") as file:
        mended = {row["file"]: row["label"] for row in csv.DictReader(file)}
    assert len(mended) == 120
    assert all(label == "ab"[int(pathlib.Path(path).stem) % 2] for path, label in mended.items())
    with open(tmp_path / "less/kept.csv", newline="") as file:
        kept = {row["file"]: row["label"] for row in csv.DictReader(file)}
    assert set(kept) == set(mended) - wrong
    assert all(pathlib.Path(path).parent.name == label for path, label in kept.items())


def test_a_table_of_a_cleaned_set_has_its_test_images_and_paths_from_where_it_lies(
    folder, tmp_path: pathlib.Path, monkeypatch, capsys
) -> None:
    command, wrong = folder
    for name in "ab":
        path = tmp_path / "data/test" / name / "new.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(path)
    monkeypatch.chdir(tmp_path)
    command[command.index("--data") + 1] = "folder:data"
    assert main([*command, "--drop", "less/kept.csv"]) == 0
    assert "--data csv:less/kept.csv --noise none" in capsys.readouterr().out
    assert main([*command, "--drop", "kept.npz", "--image-size", "12"]) == 0
    assert load("npz:kept.npz").shape == (3, 12, 12)
    assert len(load("csv:less/kept.csv", "train")) == 120 - len(wrong)
    assert load("csv:less/kept.csv", "test").classes == ("a", "b")
    assert main(["issues", "--data", "csv:less/kept.csv", "--probs", "p.pt"]) == 2  # of another length
    assert f"the data needs ({120 - len(wrong)}, 2)" in capsys.readouterr().err


def test_cleaned_files_of_a_network_that_knows_nothing_come_with_a_warning(folder, tmp_path, capsys) -> None:
    command, _ = folder
    relabel = ["--relabel", str(tmp_path / "mended.csv")]
    assert main([*command, *relabel]) == 0
    assert "may have made these files worse" not in capsys.readouterr().out
    torch.save(0.5 + 0.02 * torch.rand(120, 1) * torch.tensor([1.0, -1.0]), tmp_path / "p.pt")
    assert main([*command, *relabel]) == 0
    assert "may have made these files worse" in capsys.readouterr().out


def as_csv(folder: pathlib.Path, files: list[pathlib.Path]) -> tuple[str, list[str]]:
    lines = [f"{file},{file.parent.name}" for file in files]
    (folder / "t.csv").write_text("\n".join(["file,label", *lines]))
    return f"csv:{folder / 't.csv'}", [str(file) for file in files]


def as_parquet(folder: pathlib.Path, files: list[pathlib.Path]) -> tuple[str, list[str]]:
    table = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(table), folder / "t.parquet")
    return f"parquet:{folder / 't.parquet'}", [f"{folder / 't.parquet'}, row {row}" for row in range(len(files))]


def as_shard(folder: pathlib.Path, files: list[pathlib.Path]) -> tuple[str, list[str]]:
    with tarfile.open(folder / "t.tar", "w") as shard:
        for row, file in enumerate(files):
            (folder / "label").write_text(file.parent.name)
            shard.add(file, f"{row:04d}.png")
            shard.add(folder / "label", f"{row:04d}.cls")
    return f"webdataset:{folder / 't.tar'}", [f"{folder / 't.tar'}: {row:04d}.png" for row in range(len(files))]


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_shard])
def test_samples_of_tables_and_shards_are_named_by_their_place(write, folder, tmp_path: pathlib.Path) -> None:
    command, wrong = folder
    files = [*sorted((tmp_path / "data/train/a").iterdir()), *sorted((tmp_path / "data/train/b").iterdir())]
    command[command.index("--data") + 1], names = write(tmp_path, files)
    assert main(command) == 0
    with open(tmp_path / "out" / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {name for name, file in zip(names, files, strict=True) if str(file) in wrong}
    assert {row["sample"] for row in rows[: len(wrong)]} == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--relabel", "a.txt"], "expected a file .csv, .npz, .pt"),
        (["--drop", "a.pt"], "a file of labels has one for every sample"),
        (["--drop", "a.csv"], "digits has none of its own: write .npz"),
        (["--threshold", "1.5"], "between 0 and 1, got 1.5"),
    ],
)
def test_cleaned_files_that_cannot_be_written_are_refused_at_once(options: list[str], why: str, capsys) -> None:
    assert main(["issues", "--data", "digits", "--device", "cpu", *options]) == 2
    assert why in capsys.readouterr().err


def test_command_trains_its_own_networks_and_its_files_can_be_trained_on(tmp_path: pathlib.Path, capsys) -> None:
    command = ["issues", "--data", "digits", "--noise", "sparse-high", "--out", str(tmp_path), "--device", "cpu"]
    files = {name: str(tmp_path / name) for name in ("mended.npz", "mended.pt", "kept.npz")}
    written = ["--relabel", files["mended.npz"], "--drop", files["kept.npz"]]
    assert main([*command, "--no-progress", *written]) == 0
    assert "labels to look at first" in capsys.readouterr().out
    with open(tmp_path / "issues.csv", newline="") as file:
        rows = {int(row["sample"]): row for row in csv.DictReader(file)}
    assert len(rows) == 1442
    suspects = {number for number, row in rows.items() if float(row["wrong"]) > 0.5}
    mended, kept = numpy.load(files["mended.npz"]), numpy.load(files["kept.npz"])
    expected = [int(row["suggested" if number in suspects else "label"]) for number, row in sorted(rows.items())]
    assert mended["y_train"].tolist() == expected
    assert len(kept["y_train"]) == 1442 - len(suspects)
    assert len(kept["x_test"]) == len(mended["x_test"]) == 355
    train = ["train", "--preset", "smoke", "--loss", "ce", "--noise", "none", "--device", "cpu"]
    assert main([*train, "--data", f"npz:{files['kept.npz']}", "--out", str(tmp_path / "run")]) == 0
