"""New classes from a folder of examples, with a run whose training data is gone."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rml_meta.cli import main
from rml_meta.cli.predict import FewShotRun, load_predictor
from rml_meta.methods import FewShotMethod
from robustvision_core import predict
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


def load_run(folder: pathlib.Path) -> FewShotRun:
    run = predict.load_run(folder, device="cpu")
    assert isinstance(run, FewShotRun)
    return run


def test_the_taught_network_is_the_method(runs: dict, photos: pathlib.Path) -> None:
    """The network of a predictor against `fit_support` and `predict` of the method itself."""
    for name in ("protonet", "maml", "baseline++", "matchingnet"):
        run = load_run(runs[name])
        predictor = run.learn(photos / "support")
        ways = run.config.ways if name == "maml" else 3
        method: FewShotMethod = run._method(ways).eval()
        method.transductive = False
        files = [f for c in SHADES for f in sorted((photos / "support" / c).iterdir())]
        support = run.preprocessing.normalise(torch.stack([run.preprocessing.read(f) for f in files]))
        state = method.fit_support(support, torch.tensor([0, 1, 1, 2, 2, 2]))
        query = torch.randn(7, *support.shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(predictor.network(query), method.predict(state, query)[:, :3])


def test_a_run_learns_from_python(runs: dict, photos: pathlib.Path) -> None:
    run = load_run(runs["protonet"])
    files = {name: sorted((photos / "support" / name).iterdir()) for name in SHADES}
    held = {name: [Image.open(path) for path in paths] for name, paths in files.items()}
    new = sorted((photos / "new").glob("[!b]*.jpg"))
    expected = run.learn(photos / "support").predict(new)
    for support in (files, held):
        torch.testing.assert_close(run.learn(support).predict(new).probabilities, expected.probabilities)
    with pytest.raises(UserError, match="has not been shown its classes"):
        run.predict(new)
    with pytest.raises(DataError, match="one class, 'dark'"):
        run.learn({"dark": files["dark"], "none": []})


@pytest.mark.parametrize("method", ["protonet", "maml", "baseline++", "matchingnet"])
def test_export(method: str, runs: dict, photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    options = ["--run", str(runs[method]), "--support", str(photos / "support"), "--out", str(tmp_path)]
    assert main(["export", *options, "--format", "onnx"]) == 0
    prepared = json.loads((tmp_path / "preprocessing.json").read_text())
    assert prepared["classes"] == list(SHADES)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    predictor = load_predictor(runs[method], photos / "support", device="cpu")
    for count in (1, 5):
        query = torch.randn(count, 3, prepared["size"], prepared["size"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: query.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), predictor.network(query), rtol=1e-3, atol=1e-3)


def test_export_of_the_features(runs: dict, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run", str(runs["protonet"]), "--out", str(tmp_path)]) == 0
    program = torch.export.load(tmp_path / "model.pt2").module()
    query = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        expected = load_run(runs["protonet"])._method(5).backbone.eval()(query)
    torch.testing.assert_close(program(query), expected, rtol=1e-4, atol=1e-4)
    assert main(["export", "--run", str(runs["maml"]), "--out", str(tmp_path)]) == 2
    assert "maml adapts its features to examples of the classes: give --support" in capsys.readouterr().err


def test_a_broken_example_is_left_out_and_named(
    runs: dict, photos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / "support", tmp_path / "support")
    (tmp_path / "support" / "grey" / "bad.png").write_bytes(b"no image")
    command = ["predict", "--run", str(runs["protonet"]), "--device", "cpu", "--no-progress"]
    where = ["--support", str(tmp_path / "support"), "--images", str(photos / "new" / "dark0.jpg")]
    assert main([*command, *where, "--out", str(tmp_path / "out")]) == 0
    assert "left out: " in (said := capsys.readouterr().err)
    assert "bad.png" in said
    with open(tmp_path / "out" / "predictions.csv", newline="") as lines:
        (row,) = csv.DictReader(lines)
    expected = load_predictor(runs["protonet"], photos / "support", device="cpu").predict(photos / "new" / "dark0.jpg")
    assert row["label"] == expected.names[0]
    assert float(row["confidence"]) == pytest.approx(float(expected.confidence), abs=1e-3)
    assert main([*command, *where, "--out", str(tmp_path / "out"), "--strict"]) == 2
    for file in (tmp_path / "support" / "dark").iterdir():
        file.write_bytes(b"no image")
    capsys.readouterr()
    assert main([*command, *where, "--out", str(tmp_path / "out")]) == 2
    assert "none of the images of dark can be read" in capsys.readouterr().err


def test_refusals(runs: dict, photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for c in range(6):
        image(tmp_path / "six" / f"c{c}" / "0.png", 40 * c, c)
    with pytest.raises(UserError, match=r"maml was trained for 5 classes a task, and the support has 6"):
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
