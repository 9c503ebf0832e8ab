"""Data, networks and runtimes of others, the whole way through a command."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.filterwarnings("ignore:::(datasets|timm|torch|onnxruntime|onnxscript|multiprocess)")]

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def photo(name: str, seed: int, side: int = 36) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-25, 25, (side, side + 4, 3))
    return Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A set that Hugging Face datasets saved to disk, and Parquet files of it."""
    datasets = pytest.importorskip("datasets")
    top = tmp_path_factory.mktemp("hf")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLOURS))})
    parts = {}
    for part, count in (("train", 60), ("test", 10)):
        rows = [
            {"image": photo(name, i + 1000 * (part == "test")), "label": k}
            for i in range(count)
            for k, name in enumerate(COLOURS)
        ]
        parts[part] = datasets.Dataset.from_list(rows, features=features)
        parts[part].to_parquet(str(top / f"{part}.parquet"))
    datasets.DatasetDict(parts).save_to_disk(str(top / "saved"))
    return top


def test_sets_of_datasets_are_read_as_they_are(saved: pathlib.Path) -> None:
    from robustvision_core.data import load

    for name in (f"hf:{saved / 'saved'}", f"parquet:{saved}"):
        for part, count in (("train", 60), ("test", 10)):
            data = load(name, part, image_size=36)
            assert data.classes == tuple(COLOURS)
            assert data.class_counts().tolist() == [count, count]
        expected = np.asarray(photo("blue", 1001).resize((40, 36)))[:, 2:38]
        assert np.array_equal(data.images[3].permute(1, 2, 0).numpy(), expected)


def test_timm_network_with_own_weights_to_onnxruntime(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Train a timm network from a file of weights on a set of datasets, predict, and run its ONNX."""
    timm = pytest.importorskip("timm")
    onnxruntime = pytest.importorskip("onnxruntime")
    from fdiv_noisy.cli import main
    from robustvision_core.predict import load_run

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=7).state_dict(), tmp_path / "weights.pt")
    options = ["--data", f"hf:{saved / 'saved'}", "--noise", "none", "--loss", "kl", "--image-size", "32"]
    network = ["--network", "timm:resnet10t", "--weights", str(tmp_path / "weights.pt"), "--batch-size", "16"]
    run = tmp_path / "run"
    assert main(["train", *options, *network, "--epochs", "3", "--device", "cpu", "--out", str(run)]) == 0
    predictor = load_run(run, device="cpu")
    images = [photo(name, 5000 + i) for i in range(3) for name in COLOURS]
    found = predictor.predict(images)
    assert found.names == ["red", "blue"] * 3
    assert main(["export", "--run", str(run), "--format", "onnx", "--out", str(tmp_path / "out")]) == 0
    prepared = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    pixels = torch.stack([predictor.preprocessing.read(image) for image in images]).float() / prepared["scale"]
    mean, std = (torch.tensor(prepared[name])[:, None, None] for name in ("mean", "std"))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: ((pixels - mean) / std).numpy()})
    assert logits.argmax(1).tolist() == found.labels.tolist()


def test_tensorboard_of_a_run_is_read_by_tensorboard(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from flowaug.cli import main

    options = ["--data", f"parquet:{saved}", "--preset", "smoke", "--train-size", "64", "--device", "cpu"]
    assert main(["train", *options, "--tensorboard", "--out", str(tmp_path / "run")]) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = {event.step: event.value for event in events.Scalars("loss")}
    assert held == pytest.approx({record["epoch"]: record["loss"] for record in records})


def test_coco_keypoints_train_and_predict_poses(tmp_path: pathlib.Path) -> None:
    """A file of COCO keypoints of a box, photographed from around; its own photos are predicted on."""
    from diffpnp_pose.cli import main

    points = np.array([[x, y, z] for x in (-0.1, 0.1) for y in (-0.05, 0.05) for z in (-0.03, 0.03)])
    camera = np.array([[90.0, 0, 40], [0, 90, 30], [0, 0, 1]])
    images, annotations = [], []
    for k in range(8):
        turn = np.linalg.qr(np.random.default_rng(k).normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        seen = (points @ turn.T + [0, 0, 0.6]) @ camera.T
        keypoints = np.concatenate([seen[:, :2] / seen[:, 2:], np.full((8, 1), 2)], 1)
        Image.new("RGB", (80, 60), (20 * k, 90, 90)).save(tmp_path / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "width": 80, "height": 60})
        annotations.append({"id": k, "image_id": k, "category_id": 1, "keypoints": keypoints.flatten().tolist()})
    (tmp_path / "keypoints.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (tmp_path / "points.csv").write_text("x,y,z\n" + "\n".join(",".join(map(str, point)) for point in points))
    (tmp_path / "camera.json").write_text(json.dumps({"K": camera.tolist(), "size": [80, 60]}))
    own = [f"coco:{tmp_path / 'keypoints.json'}", "--points", str(tmp_path / "points.csv")]
    train = ["train", "--preset", "smoke", "--data", *own, "--camera", str(tmp_path / "camera.json")]
    small = ["--size", "32x32", "--network-size", "micro", "--epochs", "1", "--device", "cpu"]
    assert main([*train, *small, "--out", str(tmp_path / "run")]) == 0
    predict = ["predict", "--run", str(tmp_path / "run"), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*predict, "--camera", str(tmp_path / "camera.json"), "--device", "cpu"]) == 0
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 9
    assert (tmp_path / "out" / "bop.csv").is_file()
