from __future__ import annotations

import io
import json
import pathlib
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import PoseSet, load_poses, render_mesh
from robustvision_core.data.sources.ply import read_ply
from robustvision_core.errors import DataError

K = [50.0, 0.0, 32.0, 0.0, 55.0, 24.0, 0.0, 0.0, 1.0]
CORNERS = [[x, y, z] for x in (-10.0, 10.0) for y in (-8.0, 8.0) for z in (-5.0, 5.0)]
FACES = [[0, 1, 3], [4, 6, 7], [0, 2, 6]]
TURN = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
EYE = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def ply_text(colours: bool) -> str:
    rows = [
        [*corner, *([255, 51, 0] if i == 0 else [0, 51, 255])][: 6 if colours else 3]
        for i, corner in enumerate(CORNERS)
    ]
    tint = "property uchar red\nproperty uchar green\nproperty uchar blue\n" if colours else ""
    head = (
        "ply\nformat ascii 1.0\ncomment made\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
        f"{tint}element face 3\nproperty list uchar int vertex_indices\nend_header\n"
    )
    lines = [" ".join(map(str, row)) for row in [*rows, *([3, *face] for face in FACES)]]
    return head + "\n".join(lines) + "\n"


def ply_binary(order: str) -> bytes:
    name = {"<": "little", ">": "big"}[order]
    head = (
        f"ply\nformat binary_{name}_endian 1.0\nelement vertex 8\nproperty float x\nproperty double y\n"
        "property float z\nproperty uchar red\n"
        "property uchar green\nproperty uchar blue\nproperty uchar alpha\nelement face 3\n"
        "property list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    )
    vertex = np.zeros(8, [("x", order + "f4"), ("y", order + "f8"), ("z", order + "f4"), ("c", "u1", (4,))])
    vertex["x"], vertex["y"], vertex["z"] = np.array(CORNERS).T
    vertex["c"] = [0, 51, 255, 9]
    vertex["c"][0] = [255, 51, 0, 9]
    face = np.zeros(3, [("n", "u1"), ("v", order + "i4", (3,)), ("m", "u1"), ("uv", order + "f4", (6,))])
    face["n"], face["v"], face["m"] = 3, FACES, 6
    return head.encode() + vertex.tobytes() + face.tobytes()


@pytest.mark.parametrize("kind", ["ascii", "<", ">"])
def test_ply_files_of_every_form_are_read(kind: str) -> None:
    raw = ply_text(True).encode() if kind == "ascii" else ply_binary(kind)
    mesh = read_ply(raw, "some.ply", 0.001)
    torch.testing.assert_close(mesh.vertices, torch.tensor(CORNERS) / 1000)
    assert mesh.faces.tolist() == FACES
    corner, other = torch.tensor([1, 0.2, 0]), torch.tensor([0, 0.2, 1])
    torch.testing.assert_close(mesh.colours, torch.stack([(corner + 2 * other) / 3, other, (corner + 2 * other) / 3]))


def test_ply_without_colours_is_grey_and_line_ends_do_not_matter() -> None:
    mesh = read_ply(ply_text(False).replace("\n", "\r\n").encode(), "some.ply")
    assert mesh.colours.unique().numel() == 1
    torch.testing.assert_close(mesh.vertices, torch.tensor(CORNERS))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"solid stl",
        ply_text(True).encode()[:-30],
        ply_binary("<")[:-1],
        ply_binary("<")[:250],
        ply_text(False).replace("element face 3", "element face 99").encode(),
        ply_text(False).replace("3 4 6 7", "4 4 6 7 5").encode(),
        ply_text(False).replace("float y", "half y").encode(),
        ply_text(False).replace("property float z", "property float w").encode(),
        ply_text(False).replace("4 6 7", "4 6 8").encode(),
        ply_text(False).replace("3 0 1 3\n3 4 6 7\n3 0 2 6", "2 0 1\n2 4 6\n2 0 2").encode(),
    ],
)
def test_broken_ply_files_are_named(raw: bytes) -> None:
    with pytest.raises(DataError, match=r"some\.ply|faces holds 8, expected 0\.\.7"):
        read_ply(raw, "some.ply")


def write_set(top: pathlib.Path, keypoints: bool = True) -> None:
    """Two scenes with three images, two objects."""
    rng = np.random.default_rng(0)
    for scene, images in (("000001", (3, 20)), ("000007", (5,))):
        folder = top / "test" / scene
        (folder / "rgb").mkdir(parents=True)
        truth, info, cameras = {}, {}, {}
        for image in images:
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / "rgb" / f"{image:06d}.png")
            truth[str(image)] = [
                {"obj_id": 2, "cam_R_m2c": TURN, "cam_t_m2c": [10.0, 20.0, 500.0 + image]},
                {"obj_id": 9, "cam_R_m2c": EYE, "cam_t_m2c": [-10.0, 0.0, 600.0]},
            ]
            info[str(image)] = [
                {"bbox_obj": [20, 21, 9, 8], "visib_fract": 0.05 if image == 3 else 0.9},
                {"bbox_obj": [10, 11, 5, 6], "visib_fract": 0.5},
            ]
            cameras[str(image)] = {"cam_K": K, "depth_scale": 1.0}
        for name, held in (("gt", truth), ("gt_info", info), ("camera", cameras)):
            (folder / f"scene_{name}.json").write_text(json.dumps(held))
    (top / "models").mkdir()
    for number in (2, 9):
        (top / "models" / f"obj_{number:06d}.ply").write_text(ply_text(True))
    sizes = {"min_x": -10, "min_y": -8, "min_z": -5, "size_x": 20, "size_y": 16, "size_z": 10, "diameter": 27.5}
    (top / "models" / "models_info.json").write_text(json.dumps({"2": sizes, "9": sizes}))
    if keypoints:
        held = {"made": {"2": CORNERS[:5], "9": CORNERS}, "other": {}}
        (top / "kpts3d.json").write_text(json.dumps(held))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_set(tmp_path / "made")
    return tmp_path / "made"


def check(data: PoseSet) -> None:
    assert data.ids.tolist() == [1000003001, 1000020000, 1000020001, 7000005000, 7000005001]
    assert [o.name for o in data.objects] == ["obj_000002", "obj_000009"]
    assert data.object_id.tolist() == [1, 0, 1, 0, 1]
    assert data.image_index.tolist() == [0, 1, 1, 2, 2]
    assert data.images.shape == (3, 3, 48, 64)
    torch.testing.assert_close(data.t[1], torch.tensor([0.01, 0.02, 0.52]))
    torch.testing.assert_close(data.R[1], torch.tensor(TURN).view(3, 3))
    torch.testing.assert_close(data.K[0], torch.tensor(K).view(3, 3))
    assert data.boxes[:2].tolist() == [[10, 11, 16, 18], [20, 21, 30, 30]]
    assert data.objects[0].diameter == pytest.approx(0.0275)
    torch.testing.assert_close(data.objects[0].keypoints, torch.tensor(CORNERS[:5]) / 1000)
    assert data.visible.sum(1).tolist() == [8, 5, 8, 5, 8]
    # the first corner, turned by a quarter about z, by hand
    u, v, z = 8 + 10, -10 + 20, -5 + 520
    assert data.keypoints_2d[1, 0].tolist() == pytest.approx([50 * u / z + 32, 55 * v / z + 24], abs=1e-4)


def test_a_folder_is_read(folder: pathlib.Path) -> None:
    data = load_poses(f"bop:{folder}", "test")
    check(data)
    for row, (scene, image) in enumerate([("000001", 3), ("000001", 20), ("000007", 5)]):
        with Image.open(folder / "test" / scene / "rgb" / f"{image:06d}.png") as opened:
            assert np.array_equal(data.images[row].permute(1, 2, 0).numpy(), np.asarray(opened))


def test_a_folder_that_lies_one_deeper_is_read(folder: pathlib.Path) -> None:
    top = folder.parent / "unpacked"
    top.mkdir()
    folder.rename(top / folder.name)
    check(load_poses(f"bop:{top}", "test"))


@pytest.mark.parametrize("prefix", ["made/", ""])
@pytest.mark.parametrize("parts", [1, 2])
def test_zips_are_read_without_unpacking(folder: pathlib.Path, prefix: str, parts: int) -> None:
    place = folder.parent / "zips" / "made"
    place.mkdir(parents=True)
    archives = [zipfile.ZipFile(place / f"made{'' if k == 0 else k}.zip", "w") for k in range(parts)]
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder).as_posix()
        archives[name.startswith("models") and parts == 2].write(path, prefix + name)
    for archive in archives:
        archive.close()
    check(load_poses(f"bop:{place / 'made.zip' if parts == 1 else place}", "test"))
    assert len(list(place.parent.rglob("*"))) == 1 + parts


def test_objects_and_visibility_choose(folder: pathlib.Path) -> None:
    data = load_poses(f"bop:{folder}", "test", objects=[2], min_visib=0)
    assert data.ids.tolist() == [1000003000, 1000020000, 7000005000]
    assert len(data.objects) == 1
    assert data.keypoints_3d.shape == (3, 5, 3)
    assert len(load_poses(f"bop:{folder}", "test", min_visib=0.8)) == 2


def test_without_keypoints_the_models_box_serves(tmp_path: pathlib.Path) -> None:
    write_set(tmp_path / "made", keypoints=False)
    points = load_poses(f"bop:{tmp_path / 'made'}", "test").objects[0].keypoints
    assert points.shape == (9, 3)
    assert points[0].tolist() == [0, 0, 0]
    assert torch.cdist(points[1:], torch.tensor(CORNERS) / 1000).amin(0).max() < 1e-6
    assert len(points.unique(dim=0)) == 9


def test_without_boxes_the_mesh_gives_them(folder: pathlib.Path) -> None:
    for path in folder.rglob("scene_gt_info.json"):
        path.unlink()
    data = load_poses(f"bop:{folder}", "test")
    assert len(data) == 6
    seen = data.keypoints_2d[1]  # of object 9 the keypoints are the mesh's corners
    expected = torch.cat([seen.amin(0), seen.amax(0)])
    torch.testing.assert_close(data.boxes[1], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "test/000001/scene_camera.json").unlink(), "test/000001 lacks an annotation"),
        (lambda f: (f / "test/000001/scene_gt.json").write_text("{"), "test/000001/scene_gt.json is no JSON"),
        (lambda f: (f / "test/000001/rgb/000003.png").unlink(), "has no test/000001/rgb/000003.png"),
        (lambda f: (f / "test/000001/rgb/000003.png").write_bytes(b"x"), "000003.png is truncated or no image"),
        (lambda f: (f / "models/obj_000009.ply").unlink(), "has no models/obj_000009.ply"),
        (lambda f: (f / "models/obj_000009.ply").write_text("ply"), "models/obj_000009.ply is truncated or no PLY"),
        (lambda f: shutil.rmtree(f / "models"), "has no models_eval/models_info.json or models/models_info.json"),
        (lambda f: (f / "models/models_info.json").write_text("{}"), "models_info.json lacks of object 2"),
        (lambda f: shutil.rmtree(f / "test"), "has no test/<scene>/scene_gt.json: found no scenes"),
        (lambda f: (f / "kpts3d.json").write_text('{"made": {"2": [[1]], "9": [[1, 2, 3]]}}'), "not 3 numbers"),
    ],
)
def test_what_is_missing_or_broken_is_named(folder: pathlib.Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        load_poses(f"bop:{folder}", "test")


def test_other_errors(folder: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"has no train/<scene>/scene_gt.json: found test"):
        load_poses(f"bop:{folder}", "train")
    with pytest.raises(DataError, match="no object of test is left"):
        load_poses(f"bop:{folder}", "test", objects=[4])
    with pytest.raises(DataError, match="there is no folder or zip"):
        load_poses(f"bop:{folder / 'gone'}", "test")
    with pytest.raises(DataError, match=r"need 0\.0 GiB, more than max_gib"):
        load_poses(f"bop:{folder}", "test", max_gib=1e-6)
    with pytest.raises(DataError, match=r"lmo: found no lmo/test or lmo\*.zip under"):
        load_poses("lmo", "test", root=folder)
    path = folder / "test/000001/scene_gt.json"
    path.write_text(path.read_text().replace("-1.0", "-1.1"))
    with pytest.raises(DataError, match="matrices are no rotations"):
        load_poses(f"bop:{folder}", "test")


def test_an_archive_that_reaches_outside_is_refused(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("../test/000001/scene_gt.json", "{}")
    with pytest.raises(DataError, match="would land outside"):
        load_poses(f"bop:{tmp_path / 'made.zip'}", "test")


@pytest.fixture(scope="module")
def lmo(real_data: pathlib.Path) -> PoseSet:
    return load_poses("lmo", "test", root=real_data, min_visib=0.0)


@pytest.mark.realdata
def test_lmo_has_the_published_counts(lmo: PoseSet, real_data: pathlib.Path) -> None:
    assert len(lmo) == 1517
    assert lmo.images.shape == (200, 3, 480, 640)
    expected = {"ape": 187, "can": 199, "cat": 196, "driller": 200, "duck": 188, "eggbox": 193, "glue": 154}
    counts = dict(zip((o.name for o in lmo.objects), lmo.object_id.bincount().tolist(), strict=True))
    assert counts == expected | {"holepuncher": 200}
    with zipfile.ZipFile(real_data / "pose" / "lmo_bop19_test.zip") as archive:
        shares = [one["visib_fract"] for rows in json.loads(archive.read("lmo/test/000002/scene_gt_info.json")).values()
                  for one in rows]  # fmt: skip
        first = Image.open(io.BytesIO(archive.read("lmo/test/000002/rgb/000003.jpg")))
    assert np.array_equal(lmo.images[0].permute(1, 2, 0).numpy(), np.asarray(first.convert("RGB")))
    few = load_poses("lmo", "test", root=real_data, min_visib=0.6)
    assert len(few) == sum(share >= 0.6 for share in shares)


@pytest.mark.realdata
def test_lmo_vertices_fill_the_annotated_boxes(lmo: PoseSet) -> None:
    """The annotated boxes are those of the projected meshes; another pixel convention would shift them by a half."""
    own = replace(lmo, boxes=None).boxes
    whole = (lmo.boxes[:, :2] > 0).all(1) & (lmo.boxes[:, 2] < 640) & (lmo.boxes[:, 3] < 480)
    assert whole.sum() > 1400
    gap = (own - lmo.boxes)[whole]
    assert gap.abs().max() < 1
    assert gap.mean(0).abs().max() < 0.05


@pytest.mark.realdata
def test_lmo_keypoints_fall_into_the_boxes(lmo: PoseSet) -> None:
    inside = ((lmo.keypoints_2d >= lmo.boxes[:, None, :2] - 1) & (lmo.keypoints_2d <= lmo.boxes[:, None, 2:] + 1)).all(
        -1
    )
    counts = torch.tensor([len(o.keypoints) for o in lmo.objects])
    assert counts.tolist() == [9, 8, 10, 11, 9, 9, 10, 10]
    own = torch.arange(inside.shape[1]) < counts[lmo.object_id][:, None]
    assert inside[own].float().mean() > 0.99
    for number, one in enumerate(lmo.objects):
        assert one.mesh is not None
        assert torch.cdist(one.keypoints, one.mesh.vertices).amin(1).max() < 0.1 * one.diameter, number


@pytest.mark.realdata
def test_lmo_meshes_drawn_at_the_poses_have_the_annotated_boxes(lmo: PoseSet) -> None:
    whole = (lmo.boxes[:, :2] > 0).all(1) & (lmo.boxes[:, 2] < 640) & (lmo.boxes[:, 3] < 480)
    for i in whole.nonzero()[::90, 0].tolist():
        mesh = lmo.objects[int(lmo.object_id[i])].mesh
        assert mesh is not None
        seen = render_mesh(
            mesh.vertices, mesh.faces, mesh.colours, lmo.R[i], lmo.t[i], lmo.K[i], (640, 480), supersample=1
        )
        rows, columns = seen.mask.nonzero().T
        outline = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert outline == pytest.approx(lmo.boxes[i].tolist(), abs=1)


@pytest.mark.realdata
def test_lmo_has_coloured_models(real_data: pathlib.Path) -> None:
    data = load_poses("lmo", "test", root=real_data, models="models", objects=[9])
    (duck,) = data.objects
    assert duck.mesh is not None
    red, green, blue = duck.mesh.colours.median(0).values.tolist()
    assert min(red, green) > 2 * blue  # it is yellow
