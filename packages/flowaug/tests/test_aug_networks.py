"""The whole way with a network of another library: weights from a file, training, new images, without the data."""

from __future__ import annotations

import csv
import pathlib
import shutil

import numpy as np
import pytest
import torch
from flowaug.cli import main
from flowaug.cli.models import start_model
from flowaug.cli.recipes import TrainConfig
from PIL import Image
from robustvision_core.data import ImageSet
from robustvision_core.predict import load_run
from torchvision.models import mobilenet_v3_small

NAME = "torchvision:mobilenet_v3_small"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)


def paint(path: pathlib.Path, bright: bool, seed: int, side: int = 32) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(128 * bright, 128 + 127 * bright, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run from weights for 7 classes, gone on with where they are gone; its images are gone at the end."""
    root = tmp_path_factory.mktemp("whole")
    for part, each in (("train", 6), ("test", 2)):
        for bright, label in enumerate(("dark", "bright")):
            for number in range(each):
                paint(root / "data" / part / label / f"{number}.png", bool(bright), number)
    torch.save(mobilenet_v3_small(weights=None, num_classes=7).state_dict(), root / "own.pth")
    words = ["train", "--data", f"folder:{root / 'data'}", "--image-size", "32", "--preset", "smoke"]
    words += ["--batch-size", "6", "--network", NAME, "--weights", str(root / "own.pth"), "--device", "cpu"]
    words += ["--no-progress", "--out", str(root / "run")]
    assert main(words) == 0
    (root / "own.pth").unlink()
    assert main([*words, "--resume", "--epochs", "3"]) == 0
    shutil.rmtree(root / "data")
    return root / "run"


def test_weights_come_with_their_normalisation(run: pathlib.Path) -> None:
    held = torch.load(run / "checkpoint.pt", weights_only=False)["step"]
    torch.testing.assert_close(held["model.classifier.0.mean"], MEAN)
    assert not torch.allclose(held["model.augmenter.encoder.0.mean"], MEAN, atol=1e-3)
    torch.testing.assert_close(load_run(run, device="cpu").network.get_buffer("0.mean"), MEAN)


def test_the_weights_are_those_of_the_file(tmp_path: pathlib.Path) -> None:
    whole = mobilenet_v3_small(weights=None, num_classes=3).eval()
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    config = TrainConfig.PRESETS["smoke"].changed(network=NAME, weights=str(tmp_path / "own.pth"))
    images = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    model, said = start_model(config, ImageSet(images, torch.arange(6) % 3, ("a", "b", "c")))
    assert said.endswith("all weights loaded")
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = images.float() / 255
    with torch.no_grad():
        torch.testing.assert_close(model.eval().classifier(x), whole((x - MEAN) / std))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "own.pth"], "--weights is for networks of timm and torchvision"),
        (["--network", "resnet_of_nobody"], "timm:NAME"),
        (["--network", "torchvision:resnet_of_nobody"], "resnet"),
        (["--network", NAME, "--weights", "/no/such.pth"], "no weights at /no/such.pth"),
    ],
)
def test_wrong_networks_are_one_line(words: list[str], message: str, tmp_path: pathlib.Path, capsys) -> None:
    assert main(["train", "--preset", "smoke", *words, "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_new_images_are_labelled_and_a_broken_one_is_named(run: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    new = [paint(tmp_path / "new" / f"{number}.png", number > 1, 50 + number, 40 + number) for number in range(4)]
    (tmp_path / "new" / "broken.jpg").write_bytes(b"no image")
    words = ["predict", "--run", str(run), "--images", str(tmp_path / "new"), "--out", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu"]) == 0
    assert "broken.jpg" in capsys.readouterr().err
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(path) for path in new]
    found = load_run(run, device="cpu").predict(new)
    assert [row["label"] for row in rows] == found.names
    assert [float(row["confidence"]) for row in rows] == pytest.approx(found.confidence.tolist(), abs=1e-4)
