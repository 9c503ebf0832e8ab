"""Images of one's own through a trained run: aligned, sampled, predicted, exported, without the run's data."""

from __future__ import annotations

import csv
import json
import math
import pathlib
import shutil

import numpy as np
import pytest
import torch
from flowaug import AffineSpace
from flowaug.cli import main
from flowaug.cli.own_images import output_names
from flowaug.cli.predict import load_model
from flowaug.spaces import FREE_ENTRIES, affine_exponential, affine_logarithm
from flowaug.targets import pixel_motions
from PIL import Image
from robustvision_core.predict import load_run


def picture(path: pathlib.Path, seed: int, side: int = 20) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run trained on a folder of images that is gone afterwards."""
    root = tmp_path_factory.mktemp("own")
    for part, each in (("train", 8), ("test", 4)):
        for label in ("left", "right"):
            for number in range(each):
                picture(root / "data" / part / label / f"{number}.png", number, 16)
    arguments = ["--data", f"folder:{root / 'data'}", "--image-size", "16", "--preset", "smoke", "--batch-size", "8"]
    assert main(["train", *arguments, "--device", "cpu", "--no-progress", "--out", str(root / "run")]) == 0
    shutil.rmtree(root / "data")
    return root / "run"


@pytest.fixture
def images(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three images of other sizes, two in one folder below, and a broken one."""
    folder = tmp_path / "mine"
    picture(folder / "a.png", 1, 30)
    picture(folder / "below" / "b.png", 2, 16)
    picture(folder / "below" / "b.jpg", 3, 21)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_own_images_are_aligned_one_by_one(
    run: pathlib.Path, images: pathlib.Path, tmp_path: pathlib.Path, capsys
) -> None:
    out = tmp_path / "out"
    words = ["align", "--run", str(run), "--images", str(images), "--out", str(out), "--steps", "3", "--device", "cpu"]
    assert main(words) == 0
    assert "broken.png" in capsys.readouterr().err
    rows = table(out / "poses.csv")
    assert [pathlib.Path(row["file"]).name for row in rows] == ["a.png", "b.jpg", "b.png"]
    written = sorted(str(path.relative_to(out / "aligned")) for path in (out / "aligned").rglob("*.png"))
    assert written == ["a.png", "below/b.jpg.png", "below/b.png.png"]
    _, model, prepared, classes = load_model(run)
    assert classes == ["left", "right"]
    space = model.augmenter.space
    assert isinstance(space, AffineSpace)
    for row, name in zip(rows, ["a.png", "below/b.jpg.png", "below/b.png.png"], strict=True):
        w = torch.tensor([float(row[key]) for key in space.names])
        motion = pixel_motions(space.matrix(w, (16, 16)), (16, 16), space.align_corners)
        held = torch.tensor([float(row[f"m{i}{j}"]) for i in range(3) for j in range(3)]).view(3, 3)
        torch.testing.assert_close(motion, held, rtol=0, atol=1e-3)
        x = prepared.read(row["file"])[None].float() / 255
        with torch.no_grad():
            assert float(model.augmenter.log_prob(x, w[None, None])) == pytest.approx(
                float(row["log_density"]), abs=1e-2
            )
        aligned = torch.from_numpy(np.asarray(Image.open(out / "aligned" / name)).copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(aligned, space.warp(x, w[None, None])[0, 0], rtol=0, atol=0.01)


def test_one_image_is_enough(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    one = picture(tmp_path / "one.png", 5)
    words = ["--run", str(run), "--images", str(one), "--device", "cpu"]
    assert main(["align", *words, "--steps", "2", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "alignment.json").read_text()) == {"images": 1}
    assert main(["sample", *words, "--views", "3", "--out", str(tmp_path / "views")]) == 0
    rows = table(tmp_path / "views" / "samples.csv")
    _, model, prepared, _ = load_model(run)
    w = torch.tensor([[[float(row[key]) for key in model.augmenter.space.names] for row in rows]])
    x = prepared.read(one)[None].float() / 255
    with torch.no_grad():
        expected = model.augmenter.log_prob(x, w)[0].tolist()
    assert [float(row["log_density"]) for row in rows] == pytest.approx(expected, abs=1e-2)
    views = model.augmenter.warp(x, w)[0]
    for row, view in zip(rows, views, strict=True):
        shown = np.asarray(Image.open(tmp_path / "views" / row["view"])).transpose(2, 0, 1) / 255
        assert float(np.abs(shown - view.numpy()).max()) < 0.01
    assert (tmp_path / "views" / "samples.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align", "--images", "/no/such"], "/no/such"),
        (["align", "--images", "x.png", "--data", "digits"], "not both"),
        (["align", "--images", "FOLDER", "--strict"], "broken.png"),
        (["sample", "--images", "BROKEN"], "none of 1 images can be read"),
        (["sample", "--images", "FOLDER", "--views", "0"], "views must be at least 1"),
    ],
)
def test_wrong_images_are_one_line(
    words: list[str], message: str, run: pathlib.Path, images: pathlib.Path, tmp_path, capsys
) -> None:
    places = {"FOLDER": str(images), "BROKEN": str(images / "broken.png")}
    words = [places.get(word, word) for word in words]
    assert main([*words, "--run", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "poses.csv").exists()


def test_predictions_and_exports_need_no_data(run: pathlib.Path, images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert (
        main(["predict", "--run", str(run), "--images", str(images), "--out", str(tmp_path / "p"), "--device", "cpu"])
        == 0
    )
    rows = table(tmp_path / "p" / "predictions.csv")
    assert len(rows) == 3
    assert all(row["label"] in ("left", "right") and math.isfinite(float(row["entropy"])) for row in rows)
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "e")]) == 0
    program, predictor = torch.export.load(tmp_path / "e" / "model.pt2").module(), load_run(run, device="cpu")
    x = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(program(x), predictor.network(x))


def test_onnx_gives_the_classifier_logits(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    assert main(["export", "--run", str(run), "--format", "onnx", "--out", str(tmp_path)]) == 0
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    predictor = load_run(run, device="cpu")
    images = torch.stack([predictor.preprocessing.read(picture(tmp_path / "new.png", n)) for n in range(5)])
    x = predictor.preprocessing.normalise(images)
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), predictor.network(x), rtol=1e-4, atol=1e-4)


def test_names_of_outputs_are_never_the_same(tmp_path: pathlib.Path) -> None:
    files = [tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "sub" / "a.jpg", tmp_path / "b.jpg"]
    assert list(map(str, output_names(files))) == ["a.jpg.png", "a.png.png", "sub/a.png", "b.png"]
    assert list(map(str, output_names(files[2:3]))) == ["a.png"]


def test_logarithm_is_the_inverse_of_the_exponential() -> None:
    generators = torch.randn(300, 2, 3, dtype=torch.float64)
    generators[:, 0, 1] += torch.linspace(-2, 2, 300)
    generators[:, 1, 0] -= torch.linspace(-2, 2, 300)
    matrices = affine_exponential(generators)
    torch.testing.assert_close(affine_exponential(affine_logarithm(matrices)), matrices, rtol=1e-8, atol=1e-9)
    small = 0.5 * generators
    torch.testing.assert_close(affine_logarithm(affine_exponential(small)), small, rtol=1e-7, atol=1e-9)
    for dims in (("tx", "ty", "rot", "scale", "stretch", "shear"), FREE_ENTRIES, ("rot",), ("tx", "rot")):
        space, w = AffineSpace(dims), 0.9 * (2 * torch.rand(50, len(dims), dtype=torch.float64) - 1) / len(dims)
        torch.testing.assert_close(space.parameters(space.matrix(w, (9, 12)), (9, 12)), w, rtol=1e-7, atol=1e-9)
    with pytest.raises(ValueError, match="positive determinant"):
        affine_logarithm(torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
