"""Predictions on new images: any source, any number, broken files, tables, pictures, exports."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import load
from robustvision_core.errors import CheckpointError, DataError, UserError
from robustvision_core.predict import PredictOptions, Predictor, Preprocessing, describe, export, load_run
from robustvision_core.predict.export import read_preprocessing
from robustvision_core.predict.write import find_images, write_predictions
from robustvision_core.run import Run, plots
from torch import Tensor, nn


class Darkness(nn.Module):
    """Two classes by the mean of the normalised image: a closed form to compare with."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)


OWN = Preprocessing(8, 1, (0.5,), (0.25,))


def predictor(**options) -> Predictor:
    return Predictor(Darkness(), OWN, ("dark", "bright"), **options)


def expected(grey: float) -> float:
    """Probability of bright of an even image of `grey` (0..255)."""
    return float(torch.sigmoid(torch.tensor(2 * (grey / 255 - 0.5) / 0.25)))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for number, grey in enumerate((10, 200, 90)):
        Image.new("RGB", (20 + number, 31), (grey,) * 3).save(tmp_path / "photos" / f"{number}.png")
    Image.new("L", (9, 9), 250).save(tmp_path / "photos" / "below" / "3.jpg", quality=95)
    (tmp_path / "photos" / "4.png").write_bytes(b"no image")
    (tmp_path / "photos" / "._0.png").write_bytes(b"hidden")
    (tmp_path / "photos" / "notes.txt").write_text("text")
    return tmp_path


def rows(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="", errors="surrogateescape") as table:
        return list(csv.DictReader(table))


def test_predictions_of_a_folder(folder: pathlib.Path, capfd) -> None:
    options = PredictOptions(run="", images=str(folder / "photos"), out=str(folder / "out"), batch_size=2)
    write_predictions(predictor(), options)
    held = rows(folder / "out" / "predictions.csv")
    assert [pathlib.Path(row["file"]).name for row in held] == ["0.png", "1.png", "2.png", "3.jpg"]
    assert [row["label"] for row in held] == ["dark", "bright", "dark", "bright"]
    for row, grey in zip(held, (10, 200, 90, 250), strict=True):
        assert float(row["confidence"]) == pytest.approx(max(expected(grey), 1 - expected(grey)), abs=2e-4)
    said = capfd.readouterr()
    assert "left out" in said.err
    assert "4.png" in said.err
    assert "4 images, 1 left out" in said.out
    with Image.open(folder / "out" / "predictions.png") as sheet:
        assert sheet.size[0] > 100


def test_strict_stops_at_a_broken_image(folder: pathlib.Path) -> None:
    options = PredictOptions(run="", images=str(folder / "photos"), out=str(folder / "out"), strict=True)
    with pytest.raises(DataError, match=r"4\.png"):
        write_predictions(predictor(), options)
    assert not (folder / "out" / "predictions.csv").exists()


def test_nothing_but_broken_images_is_an_error(folder: pathlib.Path, capfd) -> None:
    options = PredictOptions(run="", images=str(folder / "photos" / "4.png"), out=str(folder / "out"))
    with pytest.raises(DataError, match="none of 1 images"):
        write_predictions(predictor(), options)


def test_extras_are_columns(folder: pathlib.Path) -> None:
    own = predictor()

    def outputs(images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return own.network(images).softmax(1), {"brightness": images.mean((1, 2, 3))}

    options = PredictOptions(run="", images=str(folder / "photos" / "*.png"), out=str(folder / "out"), batch_size=1)
    write_predictions(predictor(outputs=outputs), options)
    held = rows(folder / "out" / "predictions.csv")
    assert [float(row["brightness"]) for row in held] == pytest.approx(
        [(grey / 255 - 0.5) / 0.25 for grey in (10, 200, 90)], abs=1e-5
    )


def test_ctrl_c_keeps_what_was_done(folder: pathlib.Path, capfd) -> None:
    own = predictor()
    calls = []

    def outputs(images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own.network(images).softmax(1), {}

    options = PredictOptions(run="", images=str(folder / "photos" / "*.png"), out=str(folder / "out"), batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(predictor(outputs=outputs), options)
    assert len(rows(folder / "out" / "predictions.csv")) == 2


def test_a_name_that_is_not_utf8(folder: pathlib.Path) -> None:
    name = os.fsencode(folder / "photos") + b"/\xff.png"
    Image.new("L", (8, 8), 255).save(folder / "white.png")
    os.rename(os.fsencode(folder / "white.png"), name)
    write_predictions(predictor(), PredictOptions(run="", images=str(folder / "photos"), out=str(folder / "out")))
    assert name in [os.fsencode(row["file"]) for row in rows(folder / "out" / "predictions.csv")]


@pytest.mark.parametrize("spec", ["absent", "*.gone", "empty"])
def test_no_images_is_an_error(folder: pathlib.Path, spec: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="there is no"):
        find_images(str(folder / spec))


@pytest.mark.parametrize(
    "source",
    [
        np.full((8, 8), 200, dtype=np.uint8),
        np.full((8, 8, 1), 200, dtype=np.uint8),
        np.full((30, 20, 3), 200, dtype=np.uint8),
        torch.full((3, 12, 12), 200, dtype=torch.uint8),
        torch.full((2, 1, 8, 8), 200, dtype=torch.uint8),
        [Image.new("RGBA", (9, 9), (200, 200, 200, 255)), Image.new("L", (64, 8), 200)],
    ],
)
def test_pixels_of_every_kind(source) -> None:
    found = predictor().predict(source)
    assert found.confidence.tolist() == pytest.approx([expected(200)] * len(found.labels), abs=1e-5)
    assert set(found.names) == {"bright"}


@pytest.mark.parametrize(
    "source", [torch.rand(3, 8, 8), np.zeros((8, 8, 2), dtype=np.uint8), np.zeros((8,), dtype=np.uint8), 7]
)
def test_other_things_are_refused_in_one_sentence(source) -> None:
    with pytest.raises(DataError, match="give a path, a PIL image, an array"):
        predictor().predict(source)


def test_no_images_give_no_predictions() -> None:
    assert predictor().predict([]).probabilities.shape == (0, 2)


def test_files_are_prepared_as_the_folder_source_does(tmp_path: pathlib.Path) -> None:
    (tmp_path / "one").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one" / "a.png")
    held = load(f"folder:{tmp_path}", image_size=16)
    own = Preprocessing(16, 3, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    for source in (tmp_path / "one" / "a.png", pixels, Image.fromarray(pixels)):
        assert torch.equal(own.read(source), held.images[0])
    wanted = (held.images.double() / 255 - torch.tensor(own.mean).view(3, 1, 1)) / torch.tensor(own.std).view(3, 1, 1)
    torch.testing.assert_close(own.normalise(held.images).double(), wanted, rtol=0, atol=1e-6)


@pytest.fixture
def trained(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A run of a program that an entry point names."""
    run = Run(tmp_path / "run", {"seed": 0})
    run.about = describe("robustvision-core", OWN, ("dark", "bright"))
    run.begin()
    run.save(run.checkpoint_path, {"step": {}})

    def load_predictor(folder: str, which: str, device: str) -> Predictor:
        return predictor()

    monkeypatch.setattr(plots, "load_predictor", load_predictor, raising=False)
    entry = importlib.metadata.EntryPoint(
        "robustvision-core", "robustvision_core.run.plots:load_predictor", "robustvision.predictors"
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    return tmp_path / "run"


def test_load_run(trained: pathlib.Path) -> None:
    assert load_run(trained).predict(np.full((8, 8), 255, dtype=np.uint8)).names == ["bright"]


def test_a_run_of_an_unknown_program_is_refused(trained: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    with pytest.raises(UserError, match=r'pip install "robustvision-core\[train\]"'):
        load_run(trained)


def test_a_checkpoint_that_says_nothing_of_itself_is_refused(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, {"seed": 0})
    run.begin()
    run.save(run.checkpoint_path, {"step": {}})
    with pytest.raises(CheckpointError, match="of an earlier version"):
        load_run(tmp_path)


class Small(nn.Module):
    """Convolution, batch norm, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_export_gives_the_networks_logits_for_any_batch(tmp_path: pathlib.Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
    own = Predictor(Small(), OWN, ("a", "b", "c"))
    path = export(own, tmp_path, format)
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    said = read_preprocessing(tmp_path / "preprocessing.json")
    assert said == json.loads((tmp_path / "preprocessing.json").read_text())
    assert said["classes"] == ["a", "b", "c"]
    normalised = (images.float() / said["scale"] - said["mean"][0]) / said["std"][0]
    if format == "torch":
        logits = torch.export.load(path).module()(normalised).detach()
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: normalised.numpy()})[0])
    torch.testing.assert_close(logits.softmax(1), own.predict(images).probabilities, rtol=1e-4, atol=1e-5)


def test_a_network_that_cannot_be_exported_is_one_sentence(tmp_path: pathlib.Path) -> None:
    class Branching(Small):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images if float(images.sum()) > 0 else -images)

    with pytest.raises(UserError, match=r"torch\.export cannot trace this network"):
        export(Predictor(Branching(), OWN, ("a", "b", "c")), tmp_path)
    assert not list(tmp_path.glob("*.pt2"))
