"""The whole way with folders of one's own: an unlabelled target, pseudo-labels, predictions, ONNX; and the table."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pseudolabel_da.cli import main
from robustvision_core.predict import load_run
from robustvision_core.run.folder import load_checkpoint

SHAPES = {"bar": (slice(2, 18), slice(8, 12)), "plate": (slice(7, 13), slice(2, 18))}
QUICK = ["--image-size", "16", "--batch-size", "8", "--device", "cpu", "--no-progress"]


def draw(path: pathlib.Path, name: str, light: int, seed: int) -> None:
    """A picture of one of two shapes in noise."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 60, (20, 20, 3)) + light
    pixels[SHAPES[name]] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((20 + seed % 3, 20)).save(path)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A run on a labelled source and a flat target, and the target's former folder; the data is gone."""
    top = tmp_path_factory.mktemp("folders")
    for name in SHAPES:
        for i in range(24):
            draw(top / "photo" / name / f"{i}.png", name, 0, i)
            draw(top / "elsewhere" / "mine" / f"{name}{i}.png", name, 60, 100 + i)
    data = f"folder:{top / 'photo'}:{top / 'elsewhere' / 'mine'}"
    recipe = ["--preset", "quick", "--pretrain", "6", "--epochs", "2", "--period", "1", "--shares", "0.5", "0.9"]
    assert main(["train", "--data", data, *recipe, *QUICK, "--check", "two", "--out", str(top / "run")]) == 0
    for folder in ("photo", "elsewhere"):
        shutil.rmtree(top / folder)
    return top / "run", top / "elsewhere" / "mine"


def test_the_pseudo_labels_are_a_table_of_files(adapted: tuple[pathlib.Path, pathlib.Path]) -> None:
    run, target = adapted
    with open(run / "pseudo_labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pool = load_checkpoint(run / "checkpoint.pt")["step"]["_extra_state"]["pool"]
    assert len(rows) == int(pool["selected"].sum()) > 30
    files = sorted(str(target / f"{name}{i}.png") for name in SHAPES for i in range(24))
    held = pool["selected"].nonzero()[:, 0].tolist()
    assert [row["file"] for row in rows] == [files[place] for place in held]
    assert [list(SHAPES).index(row["label"]) for row in rows] == pool["labels"][held].tolist()
    assert [float(row["confidence"]) for row in rows] == pytest.approx(pool["confidence"][held].tolist(), abs=1e-6)
    assert {row["period"] for row in rows} == {"1"}
    assert sum(pathlib.Path(row["file"]).name.startswith(row["label"]) for row in rows) > 0.9 * len(rows)


def test_nothing_is_claimed_of_a_target_without_labels(adapted: tuple[pathlib.Path, pathlib.Path]) -> None:
    run, _ = adapted
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final"].keys() == {"source"}
    assert "start" not in summary
    assert all(record["wrong"] is None and record["wrong_estimate"] is not None for record in summary["periods"])
    assert all({"two", "agreement"} <= record["signals"].keys() for record in summary["periods"])
    assert (run / "second" / "checkpoint.pt").is_file()


def test_new_images_are_labelled_and_the_broken_one_is_named(
    adapted: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate(SHAPES):
        draw(tmp_path / "new" / f"{name}.png", name, 60, 900 + i)
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    images = ["--images", str(tmp_path / "new"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", "--run", str(adapted[0]), *images]) == 0
    said = capsys.readouterr()
    assert "left out" in said.err
    assert "broken.png" in said.err
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert {pathlib.Path(row["file"]).stem: row["label"] for row in csv.DictReader(file)} == {n: n for n in SHAPES}


def test_the_network_is_the_same_in_onnx(adapted: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    assert main(["export", "--run", str(adapted[0]), "--format", "onnx", "--out", str(tmp_path)]) == 0
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = load_run(adapted[0], device="cpu").network(images)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("domains")
    for name in SHAPES:
        for i in range(20):
            draw(top / "a" / name / f"{i}.png", name, 0, i)
            draw(top / "b" / name / f"{i}.png", name, 60, 200 + i)
            draw(top / "flat" / f"{name}{i}.png", name, 60, 400 + i)
    return top


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "target"], "--method target needs labels of the target"),
        (["--labelled", "3"], "--labelled needs labels of the target"),
        (["--target-imbalance", "3"], "--target-imbalance needs labels of the target"),
    ],
)
def test_labels_are_not_asked_of_a_flat_folder(
    domains: pathlib.Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    data = ["--data", f"folder:{domains}:a:flat", "--out", str(tmp_path / "run")]
    assert main(["train", *data, *options, *QUICK]) == 2
    assert said in capsys.readouterr().err


def test_the_eight_rows_of_the_table_go_on_where_they_stopped(
    domains: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--network", "cnn", "--pretrain", "1", "--epochs", "1", "--period", "1", "--small", "2", "--large", "0.5"]
    words = ["table", "--data", f"folder:{domains}:a:b", *few, *QUICK, "--out", str(tmp_path / "table")]
    assert main(words) == 0
    with open(tmp_path / "table" / "table2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows][::2] == [
        "source only",
        "CORAL",
        "2 of the target labelled",
        "0.5 of the target labelled",
    ]
    samples = json.loads((tmp_path / "table" / "small-0" / "summary.json").read_text())["samples"]
    assert samples == {"source": 28, "labelled target": 4, "unlabelled target": 24}
    start = load_checkpoint(tmp_path / "table" / "source-0" / "checkpoint.pt")["step"]
    config = json.loads((tmp_path / "table" / "pseudo-0" / "config.json").read_text())
    assert config["init"].endswith("source-0/checkpoint.pt")
    assert config["pretrain"] == 0
    assert start
    shutil.rmtree(tmp_path / "table" / "large-pseudo-0")
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err.count(", seed 0") == 1
    assert "0.5 labelled + pseudo-labels, seed 0" in said.err
    with open(tmp_path / "table" / "table2.csv", newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert main(["table", "--data", f"folder:{domains}:a:flat", *QUICK[:2], "--out", str(tmp_path / "none")]) == 2
    assert "needs labels of the target" in capsys.readouterr().err
