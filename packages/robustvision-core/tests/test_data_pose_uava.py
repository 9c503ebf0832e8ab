from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import load_poses
from robustvision_core.data.offline.drone_meshes import KEYPOINTS
from robustvision_core.data.offline.drones import Scenes, poses
from robustvision_core.errors import DataError, UserError

SPLITS = {"train": ["2azQ1b91cZZ", "8WUmhLawc2A"], "val": ["YmJkqBEsHnH"], "test": ["UwV83HsGsw3"]}
FOCAL = 160 / np.tan(np.deg2rad(64.69) / 2)
PUBLISHED_K = np.array([[-FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]])


def blender_pose(drone: str, number: int) -> np.ndarray[Any, Any]:
    """A drone in front of a camera that looks along -z, as 4x4."""
    R, t = poses(Scenes(drone, (320, 240), 5, 1.0, 2.0, 0.5, 4.0, 0.0), 0, torch.tensor([number]))
    turn = np.diag([1.0, -1.0, -1.0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn @ R[0].double().numpy(), turn @ t[0].double().numpy()
    return pose


def annotation(drone: str, number: int, visible: bool) -> dict[str, Any]:
    """As the published file has it: lists as text, points in units of the image by the published projection."""
    pose = blender_pose(drone, number)
    seen = (np.array(KEYPOINTS[drone]) @ pose[:3, :3].T + pose[:3, 3]) @ PUBLISHED_K.T
    points = seen[:, :2] / seen[:, 2:] / [320, 240]
    assert (seen[:, 2] < 0).all()
    assert ((points > 0) & (points < 1)).all()
    return {
        "pose": json.dumps(pose.reshape(-1).tolist()),
        "2dbbox": json.dumps([0.1, 0.2, 0.3, 0.4]),
        "3dbbox": json.dumps(np.zeros((8, 2)).tolist()),
        "3dpoints": json.dumps(points.tolist()),
        "visibleAll": visible,
    }


def write(top: pathlib.Path) -> dict[str, Any]:
    """A small tree in the layout of the data set; gives the annotations."""
    (top / "data splits").mkdir(parents=True)
    held: dict[str, Any] = {"M2ED": {}, "Tello": {}}
    for split, buildings in SPLITS.items():
        (top / "data splits" / f"scenes_{split}.txt").write_text("\n".join(buildings) + "\n")
    number = 0
    for folder, drone in (("M2ED", "m2ed"), ("Tello", "tello")):
        for building in [b for part in SPLITS.values() for b in part]:
            place = top / folder / "exocentric" / "colour" / building
            place.mkdir(parents=True)
            for row in (0, 4):
                frames = {}
                for frame in (0, 1):
                    number += 1
                    frames[str(frame)] = annotation(drone, number, visible=row == 0 or building == SPLITS["val"][0])
                    tail = "12_exocentric_colour.png" if row == 0 else "12_3_exocentric_colour.png"
                    image = np.full((240, 320, 3), number, dtype=np.uint8)
                    Image.fromarray(image).save(place / f"{row}_2020-02-1{frame if row else 0}_{frame}_{tail}")
                    date = f"2020-02-1{frame if row else 0}"
                    entry = held[folder].setdefault(f"{building}_{row}_{date}", {"exocentric": {}})
                    entry["exocentric"][str(frame)] = frames[str(frame)]
            Image.new("RGB", (320, 240)).save(place / "9_2020-02-10_0_12_exocentric_colour.png")  # not annotated
            Image.new("RGB", (320, 240)).save(place / "0_2020-02-10_0_12_egocentric_colour.png")  # another view
    (top / "metadata.json").write_text(json.dumps({"drones": held}))
    return held


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    return tmp_path, write(tmp_path / "uava")


@pytest.mark.parametrize("drone", ["m2ed", "tello"])
@pytest.mark.parametrize("split", list(SPLITS))
def test_poses_and_keypoints_are_the_annotated_ones(tree: Any, drone: str, split: str) -> None:
    root, held = tree
    data = load_poses("uava", split, root=root, drone=drone)
    table = held["M2ED" if drone == "m2ed" else "Tello"]
    # row 4 has all keypoints in the image in the building of val alone
    assert len(data) == {"train": 2, "val": 2, "test": 1}[split]
    keys = [key for key in sorted(table) if key.split("_")[0] in SPLITS[split]]
    rows = [table[key]["exocentric"]["0"] for key in keys if "0" in table[key]["exocentric"]]
    rows = [row for row in rows if row["visibleAll"]]
    for i, row in enumerate(rows):
        points = torch.tensor(json.loads(row["3dpoints"])) * torch.tensor([320, 240])
        torch.testing.assert_close(data.keypoints_2d[i], points, rtol=0, atol=1e-3)
        pose = torch.tensor(json.loads(row["pose"]), dtype=torch.float64).view(4, 4)
        # by hand: y and z change sign, x does not
        torch.testing.assert_close(data.t[i].double(), pose[:3, 3] * torch.tensor([1, -1, -1]), rtol=0, atol=1e-6)
        seen = (data.keypoints_3d[i] @ data.R[i].T + data.t[i]) @ data.K[i].T
        torch.testing.assert_close(seen[:, :2] / seen[:, 2:], points, rtol=0, atol=1e-3)
    assert (data.t[:, 2] > 0).all()
    assert data.K[0, 0, 0] == pytest.approx(252.6, abs=0.1)
    assert data.visible.all()
    assert data.objects[0].diameter == {"m2ed": 0.354, "tello": 0.219485}[drone]
    assert data.shape == (3, 240, 320)


def test_images_belong_to_their_annotations(tree: Any) -> None:
    root, _ = tree
    data = load_poses("uava", "val", root=root, frames=[0, 1])
    numbers = data.images[:, 0, 0, 0].tolist()
    assert len(set(numbers)) == len(numbers) == 4
    for number, t in zip(numbers, data.t, strict=True):
        torch.testing.assert_close(
            t.double().numpy(), blender_pose("m2ed", number)[:3, 3] * [1, -1, -1], rtol=0, atol=1e-6
        )


def test_frames_and_count_choose(tree: Any) -> None:
    root, _ = tree
    whole = load_poses("uava", "train", root=root, frames=[0, 1])
    assert len(whole) == 4
    few = load_poses("uava", "train", root=root, frames=[0, 1], count=2)
    assert few.ids.tolist() == [0, 3]
    assert torch.equal(few.images, whole.images[[0, 3]])
    assert torch.equal(few.t, whole.t[[0, 3]])


def test_the_annotations_may_lie_elsewhere(tree: Any) -> None:
    root, _ = tree
    moved = root / "elsewhere.json"
    (root / "uava" / "metadata.json").rename(moved)
    with pytest.raises(
        DataError, match=r"expected one JSON file of annotations in .*, found none: name it with metadata"
    ):
        load_poses("uava", "train", root=root)
    assert len(load_poses("uava", "train", root=root, metadata=str(moved))) == 2


def test_poses_that_contradict_the_keypoints_are_refused(tree: Any) -> None:
    root, held = tree
    for one in held["M2ED"].values():
        for frame in one["exocentric"].values():
            pose = np.array(json.loads(frame["pose"])).reshape(4, 4)
            frame["pose"] = json.dumps(np.linalg.inv(pose).reshape(-1).tolist())
    (root / "uava" / "metadata.json").write_text(json.dumps({"drones": held}))
    with pytest.raises(DataError, match=r"project .* pixels from the annotated keypoints|in front of the camera"):
        load_poses("uava", "train", root=root)


def test_errors(tree: Any, tmp_path: pathlib.Path) -> None:
    root, held = tree
    top = root / "uava"
    with pytest.raises(UserError, match="unknown drone of uava 'm3'"):
        load_poses("uava", root=root, drone="m3")
    with pytest.raises(DataError, match="uava: found no M2ED/exocentric/colour under"):
        load_poses("uava", root=tmp_path / "nothing")
    with pytest.raises(DataError, match="more than max_gib"):
        load_poses("uava", root=root, max_gib=1e-9)
    held["M2ED"]["2azQ1b91cZZ_0_2020-02-10"]["exocentric"]["0"]["pose"] = "[1, 2"
    (top / "metadata.json").write_text(json.dumps({"drones": held}))
    with pytest.raises(DataError, match=r"pose of .* is no list of numbers"):
        load_poses("uava", root=root)
    held["M2ED"]["2azQ1b91cZZ_0_2020-02-10"]["exocentric"]["0"]["pose"] = "[1, 2]"
    (top / "metadata.json").write_text(json.dumps({"drones": held}))
    with pytest.raises(DataError, match="not 16 numbers"):
        load_poses("uava", root=root)
    (top / "metadata.json").write_text(json.dumps({"drones": {}}))
    with pytest.raises(DataError, match="holds no annotations of M2ED"):
        load_poses("uava", root=root)
    (top / "metadata.json").write_text(json.dumps({"drones": {"M2ED": {}}}))
    with pytest.raises(DataError, match="has no annotated exocentric colour image of M2ED in this split"):
        load_poses("uava", root=root)
    (top / "data splits" / "scenes_train.txt").unlink()
    with pytest.raises(DataError, match=r"scenes_train.txt cannot be read"):
        load_poses("uava", root=root)
