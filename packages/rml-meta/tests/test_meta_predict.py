"""New classes from a folder of examples, with a run whose training data is gone."""

from __future__ import annotations

import csv
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rml_meta.cli import main
from rml_meta.cli.predict import load_predictor
from robustvision_core.errors import DataError, UserError

SHADES = {"dark": 20, "grey": 120, "light": 230}
SMOKE = ["--preset", "smoke", "--image-size", "12", "--device", "cpu", "--no-progress"]


def image(path: pathlib.Path, shade: int, seed: int, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).normal(shade, 8, (*size, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Runs on a folder of classes that is moved away afterwards."""
    top = tmp_path_factory.mktemp("runs")
    for c in range(24):
        for i in range(20):
            image(top / "trained" / f"class{c}" / f"{i}.png", 10 * c, 100 * c + i)
    made = {}
    for method in ("protonet", "maml", "baseline++", "matchingnet"):
        made[method] = top / method
        options = ["--data", f"folder:{top / 'trained'}", "--method", method, "--environments", "none"]
        assert main(["train", *SMOKE, *options, "--out", str(made[method])]) == 0
    shutil.move(top / "trained", top / "gone")
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A support folder of three classes with one, two and three images, and new images of them, one broken."""
    top = tmp_path_factory.mktemp("photos")
    for count, (name, shade) in enumerate(SHADES.items(), 1):
        for i in range(count):
            image(top / "support" / name / f"{i}.png", shade, 7 * count + i, (20 + i, 31))
        for i in range(4):
            image(top / "new" / f"{name}{i}.jpg", shade, 1000 + 10 * count + i, (40, 25))
    (top / "new" / "broken.jpg").write_bytes(b"no image")
    return top


@pytest.mark.parametrize("method", ["protonet", "maml", "baseline++", "matchingnet"])
def test_the_whole_way(
    method: str, runs: dict, photos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--support", str(photos / "support"), "--images", str(photos / "new"), "--out", str(tmp_path / "out")]
    assert main(["predict", "--run", str(runs[method]), *options, "--device", "cpu", "--no-progress"]) == 0
    assert "broken.jpg" in capsys.readouterr().err
    with open(tmp_path / "out" / "predictions.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 12
    assert {row["label"] for row in rows} <= set(SHADES)
    assert all(1 / 3 - 1e-6 <= float(row["confidence"]) <= 1 for row in rows)
    right = sum(pathlib.Path(row["file"]).stem.startswith(row["label"]) for row in rows)
    assert right >= (10 if method == "protonet" else 6)
    assert (tmp_path / "out" / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_each_image_is_judged_by_itself(runs: dict, photos: pathlib.Path) -> None:
    for method in ("protonet", "maml"):
        predictor = load_predictor(runs[method], photos / "support", device="cpu")
        files = sorted((photos / "new").glob("[!b]*.jpg"))
        together = predictor.predict(files).probabilities
        alone = torch.cat([predictor.predict(file).probabilities for file in files])
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
        assert predictor.classes == ("dark", "grey", "light")


def test_refusals(runs: dict, photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for c in range(6):
        image(tmp_path / "six" / f"c{c}" / "0.png", 40 * c, c)
    with pytest.raises(UserError, match=r"maml was trained for 5 classes a task, and .* has 6"):
        load_predictor(runs["maml"], tmp_path / "six", device="cpu")
    assert len(load_predictor(runs["protonet"], tmp_path / "six", device="cpu").classes) == 6
    image(tmp_path / "one" / "only" / "0.png", 9, 9)
    with pytest.raises(DataError, match="has one class, 'only'"):
        load_predictor(runs["protonet"], tmp_path / "one", device="cpu")
    with pytest.raises(DataError, match="there is no folder"):
        load_predictor(runs["protonet"], tmp_path / "no", device="cpu")
    (tmp_path / "one" / "other").mkdir()
    (tmp_path / "one" / "other" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png"):
        load_predictor(runs["protonet"], tmp_path / "one", device="cpu")
