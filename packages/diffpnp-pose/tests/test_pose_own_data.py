"""Own meshes and own annotations as training data."""

from __future__ import annotations

import csv
import importlib
import json
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh
from diffpnp_pose import project, so3_exp
from diffpnp_pose.cli import main
from diffpnp_pose.cli.data import load, warn_of_small
from diffpnp_pose.cli.mesh.objects import diameter, farthest_points, read_mesh, read_object
from diffpnp_pose.cli.mesh.views import draw_views
from diffpnp_pose.cli.recipes import MeshOptions, TrainConfig
from diffpnp_pose.geometry.quaternions import matrix_to_quaternion
from robustvision_core.cli.parsing import parse
from robustvision_core.data import Mesh, PoseObject, load_poses
from robustvision_core.errors import DataError, UserError
from robustvision_core.run.files import write_json
from scipy.spatial.distance import pdist
from trimesh.visual.color import ColorVisuals

POINTS = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0.1, 0.1, 0.05], [0.05, 0.1, 0.1]], np.float32)
K = torch.tensor([[90.0, 0, 39.5], [0, 90, 29.5], [0, 0, 1]])  # as OpenCV counts pixels


def test_meshes_of_every_kind_are_the_same(tmp_path: pathlib.Path) -> None:
    made = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    colours = np.tile(np.array([200, 100, 50, 255], np.uint8), (len(made.vertices), 1))
    made.visual = ColorVisuals(made, vertex_colors=colours)
    for kind in ("ply", "obj", "glb"):
        made.export(str(tmp_path / f"ball.{kind}"))
        mesh = read_mesh(tmp_path / f"ball.{kind}")
        assert mesh.faces.shape == (320, 3)
        assert diameter(mesh.vertices) == pytest.approx(0.1, rel=2e-3)
        assert torch.allclose(mesh.colours[0], torch.tensor([200, 100, 50]) / 255, atol=0.01)
    (tmp_path / "broken.obj").write_bytes(b"\xff\xfe not a mesh")
    with pytest.raises(DataError, match=r"broken\.obj"):
        read_mesh(tmp_path / "broken.obj")
    with pytest.raises(DataError, match="no mesh"):
        read_mesh(tmp_path / "missing.ply")


def test_units_and_keypoints(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.box((80, 60, 40)).export(str(tmp_path / "box.ply"))
    thing = read_object(str(tmp_path / "box.ply"), 8)
    assert "millimetres" in capsys.readouterr().err
    assert thing.diameter == pytest.approx(np.sqrt(80**2 + 60**2 + 40**2) / 1000, rel=1e-3)
    corners = {tuple(round(1000 * abs(v)) for v in point) for point in thing.keypoints.tolist()}
    assert corners == {(40, 30, 20)}
    assert len({tuple(point) for point in thing.keypoints.tolist()}) == 8
    assert read_object(str(tmp_path / "box.ply"), 8, unit=0.01).diameter == pytest.approx(10 * thing.diameter)
    with pytest.raises(DataError, match="8 distinct vertices, 9 keypoints"):
        read_object(str(tmp_path / "box.ply"), 9)
    cloud = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    assert diameter(cloud) == pytest.approx(pdist(cloud.numpy()).max(), rel=2e-3)
    chosen = farthest_points(cloud, 5)
    for k in range(1, 5):  # each is the farthest from those before
        gaps = torch.cdist(cloud, chosen[:k]).amin(1)
        assert float(torch.cdist(chosen[k : k + 1], chosen[:k]).min()) == pytest.approx(float(gaps.max()))


def test_views_keep_their_ranges() -> None:
    mesh = trimesh.creation.box((0.2, 0.1, 0.05))
    vertices = torch.tensor(np.array(mesh.vertices)).float()
    faces = torch.tensor(np.array(mesh.faces)).long()
    thing = PoseObject("box", vertices, 0.23, Mesh(vertices, faces, torch.full((len(faces), 3), 0.5)))
    options = MeshOptions(distance=(0.5, 2.0), elevation=(20, 60), roll=10)
    views = draw_views(options, thing, 300, (48, 32), 1.25, (0, 0))
    distance = views.t.norm(dim=1)
    assert 0.5 <= float(distance.min()) < 0.6
    assert 1.8 < float(distance.max()) <= 2.0001
    seen_from = torch.nn.functional.normalize(-(views.R.mT @ views.t[..., None])[..., 0], dim=1)
    height = torch.rad2deg(torch.asin(seen_from[:, 2]))
    assert 19.9 < float(height.min()) < 25
    assert 50 < float(height.max()) < 60.1
    assert torch.allclose(torch.linalg.det(views.R), torch.ones(300), atol=1e-5)
    pixels = project(vertices.expand(300, 8, 3), views.R, views.t, views.K)
    low, high = pixels.amin(1), pixels.amax(1)
    assert torch.allclose(torch.cat([low, high], 1), views.boxes, atol=0.05)
    assert torch.allclose((low + high) / 2, torch.tensor([24.0, 16]).expand(300, 2), atol=0.05)
    assert torch.allclose(((high - low) / torch.tensor([48.0, 32])).amax(1), torch.full((300,), 1 / 1.25), atol=1e-3)


def annotate(folder: pathlib.Path, count: int = 6) -> tuple[str, str, torch.Tensor, torch.Tensor]:
    """Images with COCO keypoints of `POINTS`; the table, the camera, and the true poses."""
    draw = torch.Generator().manual_seed(0)
    R = so3_exp(torch.randn(count, 3, generator=draw))
    t = torch.tensor([0.0, 0, 0.7]) + 0.03 * torch.randn(count, 3, generator=draw)
    seen = project(torch.tensor(POINTS).expand(count, len(POINTS), 3), R, t, K)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for k in range(count):
        cv2.imwrite(str(folder / "images" / f"{k}.png"), np.full((60, 80, 3), 30 * k, np.uint8))
        images.append({"id": k, "file_name": f"{k}.png", "width": 80, "height": 60})
        labels = torch.cat([seen[k], torch.full((len(POINTS), 1), 2.0)], 1)
        labels[k % 2, 2] = 0  # one is not labelled
        labels[k % 2, :2] = 0
        annotations.append({"id": k, "image_id": k, "category_id": 1, "keypoints": labels.flatten().tolist()})
    annotations.append({"id": 99, "image_id": 0, "category_id": 1, "keypoints": [0] * 3 * len(POINTS)})
    (folder / "keypoints.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "points.csv").write_text("x,y,z\n" + "\n".join(",".join(map(str, point)) for point in POINTS.tolist()))
    write_json(folder / "camera.json", {"K": K.tolist(), "size": [80, 60]})
    return str(folder / "points.csv"), str(folder / "camera.json"), R, t


@pytest.mark.parametrize("crop", [False, True])
def test_coco_keypoints_become_poses(tmp_path: pathlib.Path, crop: bool) -> None:
    points, camera, R, t = annotate(tmp_path)
    config = TrainConfig.PRESETS["smoke"].changed(
        **{"data": f"coco:{tmp_path / 'keypoints.json'}", "points": points, "camera": camera, "size": "40x32"},
        **{"crop.enabled": crop},
    )
    parts = [load(config, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [4, 1, 1]
    assert torch.allclose(torch.cat([part.R for part in parts]), R, atol=2e-4)
    assert torch.allclose(torch.cat([part.t for part in parts]), t, atol=1e-4)
    for part in parts:
        expected = project(part.keypoints_3d, part.R, part.t, part.K)
        assert torch.allclose(part.keypoints_2d, expected, atol=1e-3)
        assert bool(((expected > 0) & (expected < torch.tensor([40.0, 32]))).all())
    assert parts[0].images.shape[1] == (4 if crop else 3)
    assert parts[2].images.shape[1] == 3


def test_training_on_coco_keypoints(tmp_path: pathlib.Path) -> None:
    points, camera, *_ = annotate(tmp_path / "data")
    train = ["train", "--preset", "smoke", "--data", f"coco:{tmp_path / 'data' / 'keypoints.json'}", "--points", points]
    train += ["--camera", camera, "--size", "32x32", "--network-size", "micro", "--epochs", "1", "--device", "cpu"]
    assert main([*train, "--crop.on", "True", "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["final"]["samples"] == 1


def test_what_is_wrong_with_annotations_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="needs --points"):
        TrainConfig(data="coco:x.json")
    points, camera, *_ = annotate(tmp_path)
    made = {"data": f"coco:{tmp_path / 'keypoints.json'}", "camera": camera}
    (tmp_path / "few.csv").write_text("x,y,z\n0,0,0\n1,0,0\n0,1,0\n0,0,1\n")
    with pytest.raises(DataError, match="6 keypoints, the table of points 4"):
        load(TrainConfig(**made, points=str(tmp_path / "few.csv")), "train")
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(DataError, match=r"no image 0\.png"):
        load(TrainConfig(**made, points=points), "train")
    (tmp_path / "keypoints.json").write_text("{}")
    with pytest.raises(DataError, match="not a file of COCO keypoints"):
        load(TrainConfig(**made, points=points), "train")


def test_objects_too_small_to_be_seen_are_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = load_poses("drones", "test", tmp_path, size=(128, 96), count=4, distance=(0.7, 0.9), cache=False)
    warn_of_small(large)
    assert capsys.readouterr().err == ""
    small = load_poses("drones", "test", tmp_path, size=(64, 48), count=4, distance=(2.0, 2.5), cache=False)
    warn_of_small(small)
    assert "too small to be seen well" in capsys.readouterr().err


Table = tuple[dict[str, str], list[dict[str, Any]], torch.Tensor, torch.Tensor]


def tabulate(folder: pathlib.Path, columns: str) -> Table:
    """Rows for the images of `annotate`, with these groups of columns; the options, and the true poses."""
    points, camera, R, t = annotate(folder)
    seen = project(torch.tensor(POINTS).expand(len(R), len(POINTS), 3), R, t, K)
    rows: list[dict[str, Any]] = []
    for k in range(len(R)):
        values: dict[str, Any] = {"File": f"{k}.png"}
        if "keypoints" in columns:
            values |= {f"{axis}{p}": float(seen[k, p, i]) for p in range(len(POINTS)) for i, axis in enumerate("xy")}
            values["x0"] = None if k % 2 else values["x0"]
        if "matrix" in columns:
            values |= {f"r{place}": value for place, value in enumerate(R[k].flatten().tolist())}
        if "quaternion" in columns:
            values |= dict(zip(("qw", "qx", "qy", "qz"), (3 * matrix_to_quaternion(R[k])).tolist(), strict=True))
        if "keypoints" not in columns:
            values |= dict(zip(("tx", "ty", "tz"), t[k].tolist(), strict=True))
        if "camera" in columns:
            values |= {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        if "box" in columns:
            values |= {"left": 10.0, "top": 5.0, "right": 70.0, "bottom": 50.0}
        if "split" in columns:
            values["split"] = ("train", "train", "valid", "test", "test", "train")[k]
        rows.append(values)
    return {"points": points, "size": "40x32"} | ({} if "camera" in columns else {"camera": camera}), rows, R, t


def write_table(path: pathlib.Path, rows: list[dict[str, Any]]) -> str:
    """The rows as a file of the kind that the name says."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter=";")
            table.writeheader()
            table.writerows(rows)
    return f"{path.suffix[1:]}:{path}"


@pytest.mark.parametrize("columns", ["keypoints split", "matrix camera", "quaternion camera box"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_of_keypoints_or_poses(tmp_path: pathlib.Path, columns: str, suffix: str) -> None:
    options, rows, R, t = tabulate(tmp_path, columns)
    data = write_table(tmp_path / f"poses.{suffix}", rows)
    config = TrainConfig.PRESETS["smoke"].changed(**options, data=data)
    parts = {split: load(config, split) for split in ("train", "val", "test")}
    order = {"train": [0, 1, 5], "val": [2], "test": [3, 4]} if "split" in columns else None
    order = order or {"train": [0, 1, 2, 3], "val": [4], "test": [5]}
    for split, part in parts.items():
        assert torch.allclose(part.R, R[order[split]], atol=2e-4)
        assert torch.allclose(part.t, t[order[split]], atol=1e-4)
        assert torch.allclose(part.keypoints_2d, project(part.keypoints_3d, part.R, part.t, part.K), atol=1e-3)
        if "box" in columns:  # from the centre of a pixel to its corner, at half the size and 32/60 of it
            wanted = (torch.tensor([10.0, 5, 70, 50]) + 0.5) * torch.tensor([0.5, 32 / 60, 0.5, 32 / 60])
            assert torch.allclose(part.boxes, wanted.expand(len(part), 4), atol=1e-4)


def test_what_a_table_lacks_is_said(tmp_path: pathlib.Path) -> None:
    options, rows, *_ = tabulate(tmp_path, "matrix camera")

    def refused(change: dict[str, Any], message: str, drop: tuple[str, ...] = (), **other: str) -> None:
        held = [{name: value for name, value in {**row, **change}.items() if name not in drop} for row in rows]
        data = write_table(tmp_path / "poses.csv", held)
        with pytest.raises(DataError, match=message):
            load(TrainConfig.PRESETS["smoke"].changed(**options | other, data=data), "train")

    refused({}, "expected file, and either x0 y0", drop=("tz",))
    refused({}, "expected file, and either x0 y0", drop=("File",))
    refused({}, "no camera: give --camera, or the columns fx", drop=("fx",))
    refused({"ty": "near"}, "row 2: ty is 'near', which is no number")
    refused({"r4": ""}, "row 2 has no r4")
    refused({"r4": 7}, "row 2: 1 of 1 matrices are no rotations")
    refused({"left": 70, "top": 5, "right": 10, "bottom": 50}, "row 2: the box is .* right must be beyond left")
    refused({"File": " "}, "row 2 names no file")
    refused({"File": "gone.png"}, r"no image gone\.png")
    (tmp_path / "empty.csv").write_text("file,x0,y0\n")
    with pytest.raises(DataError, match="holds no rows"):
        load(TrainConfig.PRESETS["smoke"].changed(**options, data=f"csv:{tmp_path / 'empty.csv'}"), "train")
    with pytest.raises(DataError, match="cannot be read as a CSV"):
        load(TrainConfig.PRESETS["smoke"].changed(**options, data="csv:none.csv"), "train")
    with pytest.raises(UserError, match="needs --points"):
        TrainConfig(data="csv:x.csv")


def test_rounded_matrices_and_rows_without_a_split_are_taken(tmp_path: pathlib.Path) -> None:
    options, rows, R, _ = tabulate(tmp_path, "matrix camera split")
    for row in rows:
        row.update({f"r{k}": round(row[f"r{k}"], 3) for k in range(9)}, split="" if row["split"] == "train" else "test")
    data = write_table(tmp_path / "poses.csv", rows)
    held = load(TrainConfig.PRESETS["smoke"].changed(**options, data=data), "train")
    assert torch.allclose(held.R, R[[0, 1, 5]], atol=2e-3)
    assert torch.allclose(held.R @ held.R.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5)


def test_images_inside_a_table_of_poses_are_refused(tmp_path: pathlib.Path) -> None:
    options, rows, *_ = tabulate(tmp_path, "matrix camera")
    held = [{**row, "File": (tmp_path / "images" / row["File"]).read_bytes()} for row in rows]
    with pytest.raises(DataError, match="row 1: file holds bytes: expected the name"):
        load(TrainConfig.PRESETS["smoke"].changed(**options, data=write_table(tmp_path / "p.parquet", held)), "train")


def test_sizes_and_meshes_that_show_nothing_are_refused(tmp_path: pathlib.Path) -> None:
    trimesh.creation.box((0.1, 0.08, 0.05)).export(str(tmp_path / "box.ply"))
    small = TrainConfig.PRESETS["mesh"].changed(
        **{"data": f"mesh:{tmp_path / 'box.ply'}", "train_size": 2, "size": "32x32", "data_root": str(tmp_path)},
        **{"mesh.keypoints": 8, "mesh.unit": 0.001},
    )
    with pytest.raises(DataError, match=r"box is 0\.000137 m across, too small or near"):
        load(small, "train")
    for size in ("0x0", "-4x4"):
        with pytest.raises(DataError, match="multiples of 4, and positive"):
            load(small.changed(size=size), "train")


def test_crops_by_their_former_name() -> None:
    assert TrainConfig().changed(**{"crop.on": True}).crop.enabled
    assert parse(TrainConfig, ["--crop.on"], "train").crop.enabled
    assert not parse(TrainConfig, ["--preset", "mesh", "--crop.no-on"], "train").crop.enabled
