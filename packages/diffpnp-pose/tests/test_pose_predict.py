"""From training to poses of new images, as a user has it; the training data is gone by then."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
import torch
from diffpnp_pose import so3_exp
from diffpnp_pose.cli import main
from diffpnp_pose.cli.camera import read_camera
from diffpnp_pose.cli.prediction.video import box_of
from robustvision_core.data import load_poses, render_mesh
from robustvision_core.predict import load_run
from robustvision_core.run.files import write_json
from torch import Tensor

ASCII = """ply
format ascii 1.0
element vertex 8
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 12
property list uchar int vertex_indices
end_header
"""
TRIANGLES = (
    (0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4), (2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6),
    (1, 3, 5), (3, 7, 5),
)  # fmt: skip


def write_box(path: pathlib.Path) -> pathlib.Path:
    """A box of 80x60x40 mm with a colour at each corner, in millimetres."""
    corners = [(x * 40, y * 30, z * 20) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)]
    colours = [(255 * (k & 1), 127 * (k >> 1 & 1), 255 * (k >> 2)) for k in range(8)]
    rows = [" ".join(map(str, (*corner, *colour))) for corner, colour in zip(corners, colours, strict=True)]
    path.write_text(ASCII + "\n".join([*rows, *(f"3 {a} {b} {c}" for a, b, c in TRIANGLES)]) + "\n")
    return path


def picture(run: pathlib.Path, path: pathlib.Path, t: tuple[float, float, float], K: Tensor) -> None:
    """A photo of 96x72 pixels of the run's object."""
    mesh = load_run(run).object.mesh  # type: ignore[attr-defined]
    R = so3_exp(torch.tensor([2.0, 0.4, 0.3]))
    seen = render_mesh(mesh.vertices, mesh.faces, mesh.colours, R, torch.tensor(t), K, (96, 72))
    colour = (seen.colour + 0.5 * (1 - seen.mask[..., None])) * 255
    cv2.imwrite(str(path), cv2.cvtColor(colour.byte().numpy(), cv2.COLOR_RGB2BGR))


CAMERA = torch.tensor([[120.0, 0, 48], [0, 120, 36], [0, 0, 1]])  # the image's corner is (0, 0)


def write_camera(path: pathlib.Path) -> str:
    K = CAMERA.clone()
    K[:2, 2] -= 0.5  # as OpenCV counts
    write_json(path, {"K": K.tolist(), "distortion": {"model": "opencv", "coefficients": [0.0] * 5}, "size": [96, 72]})
    return str(path)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the run `run`, trained on crops of a mesh that is no longer there, and with `new` images."""
    home = tmp_path_factory.mktemp("pose")
    mesh = write_box(home / "box.ply")
    photos = home / "backgrounds"
    photos.mkdir()
    noise = np.random.default_rng(0)
    for k in range(3):
        cv2.imwrite(str(photos / f"{k}.png"), noise.integers(0, 255, (20 + 30 * k, 90, 3), dtype=np.uint8))
    train = ["train", "--preset", "smoke", "--data", f"mesh:{mesh}", "--size", "32x32", "--network-size", "micro"]
    train += ["--train-size", "24", "--val-size", "4", "--test-size", "4", "--epochs", "1", "--mesh.keypoints", "6"]
    train += ["--mesh.background", str(photos), "--device", "cpu", "--data-root", str(home / "root")]
    assert main([*train, "--out", str(home / "run")]) == 0
    shutil.rmtree(home / "root")
    mesh.unlink()
    (home / "new" / "000002" / "rgb").mkdir(parents=True)
    for k in range(3):
        name = home / "new" / "000002" / "rgb" / f"{k:06d}.png"
        picture(home / "run", name, (0.01 * k, 0.0, 0.25 + 0.05 * k), CAMERA)
    (home / "new" / "broken.png").write_bytes(b"not an image")
    write_camera(home / "camera.json")
    return home


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def test_a_folder_of_new_images_with_a_broken_one(
    home: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "boxes.csv"
    lines = "".join(f"000002/{k:06d},20,10,80,65\n" for k in range(3))
    boxes.write_text("file,left,top,right,bottom\n" + lines + "broken.png,0,0,9,9\n")
    arguments = ["predict", "--run", str(home / "run"), "--images", str(home / "new"), "--object", "5"]
    arguments += ["--camera", str(home / "camera.json"), "--boxes", str(boxes), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "3 images, 1 left out" in printed.out
    assert "3 of 3 have a score below 0.3" in printed.out  # after an epoch on 24 images
    assert printed.err.count("broken.png") >= 1
    rows, bop = rows_of(tmp_path / "out" / "predictions.csv"), rows_of(tmp_path / "out" / "bop.csv")
    assert [pathlib.Path(row["file"]).name for row in rows] == ["000000.png", "000001.png", "000002.png"]
    valid = [row for row in rows if row["valid"] == "1"]
    assert len(valid) == len(bop) > 0
    for row, line in zip(valid, bop, strict=True):
        R = so3_exp(torch.tensor([float(row[name]) for name in ("rx", "ry", "rz")], dtype=torch.float64))
        assert torch.allclose(R.flatten(), torch.tensor([float(v) for v in line["R"].split()]).double(), atol=1e-5)
        t = [1000 * float(row[name]) for name in ("tx", "ty", "tz")]
        assert t == pytest.approx([float(value) for value in line["t"].split()], rel=1e-4)
        assert (line["scene_id"], line["im_id"], line["obj_id"]) == ("2", str(int(pathlib.Path(row["file"]).stem)), "5")
    assert (tmp_path / "out" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--strict", "True", "--out", str(tmp_path / "strict")]) == 2
    assert "broken.png" in capsys.readouterr().err


def test_from_python_paths_arrays_and_tensors_agree(home: pathlib.Path) -> None:
    run = load_run(home / "run", device="cpu")
    files = sorted((home / "new").rglob("0*.png"))
    arrays = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    box = (20.0, 10.0, 80.0, 65.0)
    found = run.predict(files, camera=CAMERA, boxes=[box] * 3)  # type: ignore[call-arg]
    camera = read_camera(str(home / "camera.json"))
    again = run.predict(arrays, camera=camera, boxes=[box] * 3, batch_size=2)  # type: ignore[call-arg]
    assert torch.allclose(found.points, again.points, atol=1e-4)  # type: ignore[attr-defined]
    one = run.predict(torch.from_numpy(arrays[1]).permute(2, 0, 1), camera=CAMERA, boxes=[box])  # type: ignore[call-arg]
    assert torch.allclose(one.points[0], found.points[1], atol=1e-4)  # type: ignore[attr-defined]
    # the pose does not depend on how the photo is cut out of a larger one
    wide = [np.pad(array, ((8, 4), (16, 0), (0, 0))) for array in arrays]
    K = CAMERA + torch.tensor([[0.0, 0, 16], [0, 0, 8], [0, 0, 0]])
    moved = run.predict(wide, camera=K, boxes=[(36.0, 18.0, 96.0, 73.0)] * 3)  # type: ignore[call-arg]
    assert torch.allclose(moved.points - torch.tensor([16.0, 8]), found.points, atol=0.05)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="no camera"):
        run.predict(files)


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_export_finds_the_same_keypoints(home: pathlib.Path, tmp_path: pathlib.Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
    assert main(["export", "--run", str(home / "run"), "--format", format, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "preprocessing.json").read_text())
    assert (told["width"], told["height"], told["margin"]) == (32, 32, 1.4)
    assert len(told["keypoints"]) == 6
    run = load_run(home / "run", device="cpu")
    file = next((home / "new").rglob("000001.png"))
    ready = run.prepare(str(file), CAMERA)  # type: ignore[attr-defined]
    pixels = ready.image.numpy().astype(np.float32) / told["scale"]
    mean, std = (np.array(told[name], np.float32)[:, None, None] for name in ("mean", "std"))
    batch = ((pixels - mean) / std)[None]
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
        (points,) = session.run(None, {session.get_inputs()[0].name: batch})
    else:
        points = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(batch)).detach().numpy()
    found = run.find([ready])  # type: ignore[attr-defined]
    scale = ready.K[0, 0] / ready.source_K[0, 0]
    in_photo = (torch.from_numpy(points)[0] - ready.K[:2, 2]) / scale + ready.source_K[:2, 2]
    assert torch.allclose(in_photo, found.points[0], atol=0.02)


def test_a_video_is_overlaid_and_its_poses_written(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    frames = [cv2.imread(str(file)) for file in sorted((home / "new").rglob("0*.png"))]
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 72))
    for frame in frames * 2:
        writer.write(frame)
    writer.release()
    arguments = ["predict", "--run", str(home / "run"), "--video", str(tmp_path / "in.mp4"), "--device", "cpu"]
    arguments += [
        "--camera",
        str(home / "camera.json"),
        "--box",
        "20",
        "10",
        "80",
        "65",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    assert [row["file"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == [f"{k:06d}" for k in range(6)]
    seen = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert int(seen.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert seen.read()[1].shape == (72, 96, 3)


def test_a_box_follows_the_pose(home: pathlib.Path) -> None:
    run = load_run(home / "run", device="cpu")
    file = next((home / "new").rglob("000001.png"))
    part = run.predict(str(file), camera=CAMERA)
    R, t = so3_exp(torch.tensor([[2.0, 0.4, 0.3]])), torch.tensor([[0.01, 0.0, 0.3]])
    true = type(part)(R, t, torch.tensor([True]), torch.ones(1), part.points, part.rms, part.K)  # type: ignore[call-arg]
    box = box_of(run, true)  # type: ignore[arg-type]
    image = np.asarray(cv2.imread(str(file)), dtype=int)
    rows, columns = np.nonzero(np.abs(image - image[0, 0]).sum(2) > 30)
    assert box == pytest.approx((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=1.2)
    lost = type(part)(R, t, torch.tensor([False]), torch.ones(1), part.points, part.rms, part.K)  # type: ignore[call-arg]
    assert box_of(run, lost) is None  # type: ignore[arg-type]


def test_whole_image_runs_know_their_camera(tmp_path: pathlib.Path) -> None:
    train = ["train", "--preset", "smoke", "--size", "64x48", "--network-size", "micro", "--device", "cpu"]
    train += ["--train-size", "8", "--val-size", "0", "--test-size", "2", "--epochs", "1", "--data-root", str(tmp_path)]
    assert main([*train, "--loss", "lh", "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run", device="cpu")
    drones = load_poses("drones", "test", tmp_path, size=(64, 48), count=2)
    found = run.predict(list(drones.images))
    assert torch.allclose(found.K, drones.K)  # type: ignore[attr-defined]
    assert found.points.shape == (2, 9, 2)  # type: ignore[attr-defined]
    larger = torch.nn.functional.interpolate(drones.images.float(), scale_factor=2).byte()
    assert torch.allclose(run.predict(list(larger)).K[:, 0], 2 * drones.K[:, 0])  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="has 48x64 pixels, its camera 64x48"):
        run.predict(drones.images[0].mT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "a", "--video", "b"], "--images or --video"),
        ([], "--images or --video"),
        (["--video", "missing.mp4"], "no video"),
        (["--images", "nowhere"], "nowhere"),
    ],
    ids=["two", "none", "no video", "no images"],
)
def test_what_is_wrong_is_said_in_a_line(
    home: pathlib.Path, tmp_path: pathlib.Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--run", str(home / "run"), "--device", "cpu", "--out", str(tmp_path / "out"), *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
