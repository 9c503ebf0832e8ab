"""Files that are odd or made to harm: read rightly, or refused in one line without taking the memory first."""

from __future__ import annotations

import bz2
import gzip
import io
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from robustvision_core.data import load, load_poses
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.reading.decode import decode
from robustvision_core.data.reading.limits import most_unpacked, unpacked
from robustvision_core.data.sources.idx import read_idx
from robustvision_core.data.sources.ply import read_ply
from robustvision_core.errors import DataError, UserError

IMAGES = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize("top", [3 * 10**6, 2**62, 2**63 - 1, np.uint64(2**64 - 1), 1000])
def test_more_classes_than_images_could_have(tmp_path: pathlib.Path, top: int) -> None:
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=np.array([0, top], dtype=type(top) if top > 2**63 else None))
    with pytest.raises(DataError, match=rf"y_train has the label {top}, and 2 images cannot have so many classes"):
        load(f"npz:{tmp_path}/a.npz")
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=np.array([0, 999]))
    assert load(f"npz:{tmp_path}/a.npz").num_classes == 1000


def npy(shape: str, kind: str = "|u1", data: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "member",
    [
        npy("(1000000000000, 8, 8)"),
        npy("(2, 8, 8)"),
        npy("(-2, 8, 8)"),
        npy("(2, 8, 99999999999999999999999)"),
        npy("(1, 8, 8)", "|O"),
        npy("(1, 8, 8)", "<U9999999"),
        npy("(1,")[:40],
        b"",
    ],
)
def test_headers_that_promise_what_is_not_there(tmp_path: pathlib.Path, member: bytes) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", member)
        archive.writestr("y_train.npy", npy("(1,)", "<i8", b"\0" * 8))
    with pytest.raises(DataError, match=r"a\.npz: x_train") as refused:
        load(f"npz:{path}")
    assert "\n" not in str(refused.value)


def bomb(path: pathlib.Path, mib: int) -> pathlib.Path:
    """A packed file of zeros."""
    zeros = b"\0" * 2**20
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
            for _ in range(mib):
                file.write(zeros)
    elif path.suffix == ".npz":
        np.savez_compressed(path, x_train=np.zeros((mib, 1024, 1024), np.uint8), y_train=np.zeros(mib, int))
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("a.png")
            info.size = mib * 2**20
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    else:
        path.write_bytes((gzip if path.suffix == ".gz" else bz2).compress(zeros * mib))
    return path


@pytest.mark.parametrize("name", ["b.zip", "b.tar.gz"])
def test_archives_that_grow_a_thousandfold(tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / name, 80)
    with pytest.raises(DataError, match=r"unpacks to 83,8\d\d,\d\d\d or more.*ROBUSTVISION_UNPACK_RATIO"):
        read_members(path, lambda _: True)
    monkeypatch.setenv("ROBUSTVISION_UNPACK_RATIO", "5000")
    assert [len(raw) for raw in read_members(path, lambda _: True).values()] == [80 * 2**20]
    monkeypatch.setenv("ROBUSTVISION_UNPACK_RATIO", "much")
    with pytest.raises(UserError, match="ROBUSTVISION_UNPACK_RATIO is 'much': expected a number"):
        read_members(path, lambda _: True)


@pytest.mark.parametrize("name", ["b.gz", "b.bz2"])
def test_packed_files_that_grow_a_thousandfold(tmp_path: pathlib.Path, name: str) -> None:
    path = bomb(tmp_path / name, 65)
    with pytest.raises(DataError, match=r"unpacks to 67,108,865 or more, 67,108,864 are allowed"):
        unpacked(path)
    assert unpacked(bomb(tmp_path / name, 1)) == b"\0" * 2**20
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="is truncated or not a"):
        unpacked(path)
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        unpacked(tmp_path / f"none.{name}")


def test_an_idx_file_that_grows_a_thousandfold(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="is refused"):
        read_idx(bomb(tmp_path / "train-images-idx3-ubyte.gz", 65))


def test_an_npz_that_grows_a_thousandfold(tmp_path: pathlib.Path) -> None:
    path = bomb(tmp_path / "a.npz", 70)
    with pytest.raises(DataError, match="is refused: it has"):
        load(f"npz:{path}")
    assert most_unpacked(path) == 64 * 2**20


def test_what_macos_adds_is_left_out(tmp_path: pathlib.Path) -> None:
    note = b"\0\5\x16\7" + b"x" * 60
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "set" / name)
    (tmp_path / "set" / "a" / "._1.jpg").write_bytes(note)
    (tmp_path / "set" / ".DS_Store").write_bytes(note)
    assert len(load(f"folder:{tmp_path}/set", image_size=8)) == 2
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/1.jpg", "a/._1.jpg", "__MACOSX/a/._1.jpg", "__MACOSX/a/1.jpg"):
            archive.writestr(name, note)
    assert list(read_members(tmp_path / "a.zip", lambda _: True)) == ["a/1.jpg"]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_are_upright(tmp_path: pathlib.Path, orientation: int, mode: str) -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (10, 20, 3), dtype=np.uint8)).convert(mode)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(tmp_path / "a.png")).convert("RGB")  # as viewers show it
    expected = torch.from_numpy(np.asarray(shown).copy())
    assert torch.equal(decode(tmp_path / "a.png", "a").permute(1, 2, 0), expected)
    assert decode(tmp_path / "a.png", "a", size=8).shape == (3, 8, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, to tell the user
def test_broken_exif_is_no_obstacle(tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 9)
    assert decode(tmp_path / "a.jpg", "a").shape == (3, 10, 20)


HEADER = (
    "ply\nformat ascii 1.0\nelement vertex {vertices}\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
)
BODY = "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def ply(body: str, vertices: object = 3, faces: object = 1) -> bytes:
    return (HEADER.format(vertices=vertices, faces=faces) + body).encode()


@pytest.mark.parametrize("body", ["\n" + BODY, BODY.replace("\n", "\n\n"), BODY.replace("\n", "\r\n"), BODY + "\n \n"])
def test_blank_lines_of_a_mesh_are_nothing(body: str) -> None:
    mesh = read_ply(ply(body), "m.ply")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("body", "counts", "message"),
    [
        (BODY.replace("1 0 0", "nan 0 0"), {}, "a vertex is not finite"),
        (BODY.replace("1 0 0", "0 inf 0"), {}, "a vertex is not finite"),
        (BODY.replace("1 0 0", "1e60 0 0"), {}, "a vertex is not finite"),
        (BODY.replace("3 0 1 2", "3 0 1.9 2"), {}, "vertex_indices holds a number that is not whole"),
        (BODY.replace("3 0 1 2", "3 0 nan 2"), {}, "vertex_indices holds a number that is not whole"),
        (BODY.replace("3 0 1 2", "3 0 5000000000 2"), {}, "vertex_indices holds a number that is not whole"),
        (BODY.replace("3 0 1 2", "3.5 0 1 2"), {}, "m.ply is truncated or no PLY"),
        (BODY.replace("3 0 1 2", "3 0 1 -1"), {}, "face"),
        (BODY.replace("0 1 0", "a b c"), {}, "m.ply is truncated or no PLY"),
        (BODY, {"vertices": 10**18}, "m.ply is truncated or no PLY"),
        (BODY, {"vertices": -3}, "counts -3 rows"),
        (BODY, {"faces": "many"}, "counts many rows"),
    ],
)
def test_meshes_that_are_none(body: str, counts: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_ply(ply(body, **counts), "m.ply")
    with pytest.raises(DataError):
        read_ply(ply("", **counts).replace(b"ascii", b"binary_little_endian"), "m.ply")


POSE = '"cam_R_m2c":[1,0,0,0,1,0,0,0,1],"cam_t_m2c":[0,0,5]'
SCENES = {
    "nested without end": "[" * 100_000,
    "a list": "[1]",
    "object of text": '{"0":[{' + POSE + ',"obj_id":"a"}]}',
    "object of a float": '{"0":[{' + POSE + ',"obj_id":1.5}]}',
    "object beyond names": '{"0":[{' + POSE + ',"obj_id":1e400}]}',
    "object below zero": '{"0":[{' + POSE + ',"obj_id":-1}]}',
    "image of text": '{"a":[{' + POSE + ',"obj_id":1}]}',
    "image beyond names": '{"99999999999999999999":[{' + POSE + ',"obj_id":1}]}',
    "pose of text": '{"0":[{' + POSE.replace("[0,0,5]", '"far"') + ',"obj_id":1}]}',
    "pose with text": '{"0":[{' + POSE.replace("[0,0,5]", '[0,0,"far"]') + ',"obj_id":1}]}',
    "items of numbers": '{"0":[3]}',
    "not UTF-8": '{"\xff": 1}',
}


@pytest.mark.parametrize("scene", SCENES)
def test_annotations_that_are_none(tmp_path: pathlib.Path, scene: str) -> None:
    folder = tmp_path / "test" / "000001"
    (folder / "rgb").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "rgb" / "000000.png")
    (folder / "scene_gt.json").write_bytes(SCENES[scene].encode("latin-1"))
    (folder / "scene_camera.json").write_text('{"0":{"cam_K":[5,0,4,0,5,4,0,0,1]}}')
    (folder / "scene_gt_info.json").write_text('{"0":[{"visib_fract":1,"bbox_obj":[0,0,3,3]}]}')
    about = '{"diameter":1,"min_x":0,"min_y":0,"min_z":0,"size_x":1,"size_y":1,"size_z":1}'
    (tmp_path / "models" / "models_info.json").write_text(f'{{"1":{about}}}')
    (tmp_path / "models" / "obj_000001.ply").write_bytes(ply(BODY))
    with pytest.raises(DataError) as refused:
        load_poses(f"bop:{tmp_path}", "test")
    assert "\n" not in str(refused.value)
