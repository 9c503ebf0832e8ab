"""A trained run at work where its data is not: predictions, exports, networks of other libraries."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pathlib
import shutil

import pytest
import torch
from fdiv_noisy.cli import main
from fdiv_noisy.networks import build
from PIL import Image
from robustvision_core.predict import load_run

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def make_images(folder: pathlib.Path, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = torch.tensor(colour) + torch.randint(-25, 25, (20, 24, 3), generator=generator)
            Image.fromarray(pixels.byte().numpy()).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("predict")
    make_images(top / "data" / "train", 40, 0)
    make_images(top / "data" / "test", 5, 1)
    arguments = ["--data", f"folder:{top / 'data'}", "--noise", "none", "--loss", "kl", "--image-size", "16"]
    more = ["--network", "resnet8", "--epochs", "3", "--batch-size", "16", "--device", "cpu"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["train", *arguments, *more, "--out", str(top / "run")]) == 0
    assert said.getvalue().startswith("test accuracy, its labels as given, ")  # nobody knows whether they are clean
    shutil.rmtree(top / "data")
    return top / "run"


def test_predict_labels_new_images_and_names_the_broken_one(
    run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "new", 3, 2)
    (tmp_path / "new" / "red" / "broken.png").write_bytes(b"no image")
    assert main(["predict", "--run", str(run), "--images", str(tmp_path / "new"), "--out", str(tmp_path / "out")]) == 0
    assert "broken.png" in "".join(capsys.readouterr())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    good = [row for row in rows if "broken" not in row["file"]]
    assert len(good) == 6
    for row in good:
        assert row["label"] == pathlib.Path(row["file"]).parent.name
        assert 0.5 < float(row["confidence"]) <= 1


def test_load_run_predicts_from_python(run: pathlib.Path) -> None:
    predictor = load_run(run, device="cpu")
    blue = torch.tensor(COLOURS["blue"]).byte()[:, None, None].expand(3, 33, 40)
    assert predictor.predict(blue).names == ["blue"]


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_export_gives_the_same_logits(run: pathlib.Path, tmp_path: pathlib.Path, form: str) -> None:
    pytest.importorskip("onnxruntime" if form == "onnx" else "torch")
    assert main(["export", "--run", str(run), "--format", form, "--out", str(tmp_path)]) == 0
    prepared = json.loads((tmp_path / "preprocessing.json").read_text())
    assert prepared["classes"] == ["blue", "red"]
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_run(run, device="cpu").network(images)
    (file,) = [path for path in tmp_path.iterdir() if path.suffix in (".pt2", ".onnx")]
    if form == "torch":
        actual = torch.export.load(file).module()(images)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        actual = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_network_of_torchvision_starts_from_a_file(tmp_path: pathlib.Path, capsys) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(num_classes=7).state_dict(), tmp_path / "w.pt")
    command = ["train", "--preset", "smoke", "--loss", "ce", "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    network = ["--network", "torchvision:resnet18"]
    assert main([*command, *network, "--out", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--run", str(tmp_path / "a"), "--device", "cpu"]) == 0
    assert main([*command, *network, "--weights", str(tmp_path / "w.pt"), "--out", str(tmp_path / "b")]) == 2
    assert "is not of torchvision:resnet18" in capsys.readouterr().err
    assert main([*command, "--weights", str(tmp_path / "w.pt")]) == 2
    assert "cnn starts from --init" in capsys.readouterr().err
    assert main([*command, "--network", "resnet9"]) == 2
    assert "did you mean 'resnet8'?" in capsys.readouterr().err


def test_weights_bring_their_normalisation(tmp_path: pathlib.Path, capsys) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "w.pt")
    command = ["train", "--preset", "smoke", "--loss", "ce", "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    more = ["--network", "torchvision:resnet18", "--weights", str(tmp_path / "w.pt"), "--out", str(tmp_path / "run")]
    assert main([*command, *more]) == 0
    trained = capsys.readouterr().out
    assert "weights loaded but for the head" in trained
    assert load_run(tmp_path / "run", device="cpu").preprocessing.mean == pytest.approx([0.449], abs=1e-3)
    (tmp_path / "w.pt").unlink()
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    accuracy = trained.split("clean test accuracy ")[1].split(" %")[0]
    assert f"{accuracy} %" in capsys.readouterr().out.splitlines()[-1]


def test_small_residual_networks_have_their_published_size() -> None:
    def weights(n: int) -> int:  # convolutions, batch norms and the linear layer, counted by hand
        stem = 3 * 16 * 9 + 32
        stages = [(16, 16), (16, 32), (32, 64)]
        body = sum(i * o * 9 + o * o * 9 + 4 * o + (n - 1) * (2 * o * o * 9 + 4 * o) for i, o in stages)
        return stem + body + 64 * 10 + 10

    for name, blocks, published in (("resnet8", 1, 75_290), ("resnet20", 3, 269_722)):
        assert sum(p.numel() for p in build(name, 3, 32, 10).parameters()) == weights(blocks) == published
