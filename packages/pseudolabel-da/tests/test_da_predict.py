"""An adapted classifier at work where its data is not: predictions and exports."""

from __future__ import annotations

import csv
import pathlib
import shutil

import pytest
import torch
from PIL import Image
from pseudolabel_da.cli import main
from robustvision_core.predict import load_run

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def make_domain(folder: pathlib.Path, count: int, light: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = torch.randint(-25, 25, (20, 24, 3), generator=generator)
            pixels = (torch.tensor(colour) + light + noise).clamp(0, 255).byte()
            Image.fromarray(pixels.numpy()).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("predict")
    make_domain(top / "data" / "photo", 40, 0, 0)
    make_domain(top / "data" / "dusk", 40, 30, 1)
    arguments = ["--data", f"folder:{top / 'data'}:photo:dusk", "--image-size", "16", "--batch-size", "16"]
    more = ["--pretrain", "6", "--epochs", "2", "--period", "1", "--augment", "none", "--device", "cpu"]
    assert main(["train", *arguments, *more, "--out", str(top / "run")]) == 0
    shutil.rmtree(top / "data")
    return top / "run"


def test_predict_labels_new_images_and_names_the_broken_one(
    run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_domain(tmp_path / "new", 3, 30, 2)
    (tmp_path / "new" / "red" / "broken.png").write_bytes(b"no image")
    assert main(["predict", "--run", str(run), "--images", str(tmp_path / "new"), "--out", str(tmp_path / "out")]) == 0
    assert "broken.png" in "".join(capsys.readouterr())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        good = [row for row in csv.DictReader(file) if "broken" not in row["file"]]
    assert len(good) == 6
    for row in good:
        assert row["label"] == pathlib.Path(row["file"]).parent.name
        assert 0.5 < float(row["confidence"]) <= 1


def test_load_run_predicts_from_python_as_the_network_does(run: pathlib.Path) -> None:
    predictor = load_run(run, device="cpu")
    blue = torch.tensor(COLOURS["blue"]).byte()[:, None, None].expand(3, 16, 16)
    found = predictor.predict(blue)
    assert found.names == ["blue"]
    with torch.no_grad():
        expected = predictor.network(blue[None].float() / 127.5 - 1).softmax(1)
    torch.testing.assert_close(found.probabilities, expected)


def test_export_gives_the_same_logits(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert main(["export", "--run", str(run), "--format", "torch", "--out", str(tmp_path)]) == 0
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (file,) = tmp_path.glob("*.pt2")
    with torch.no_grad():
        expected = load_run(run, device="cpu").network(images)
    torch.testing.assert_close(torch.export.load(file).module()(images), expected, rtol=1e-4, atol=1e-4)
