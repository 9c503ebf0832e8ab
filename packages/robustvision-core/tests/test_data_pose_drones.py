from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import torch
from robustvision_core.data import PoseSet, load_poses, render_mesh
from robustvision_core.data.offline import drones
from robustvision_core.data.offline.drones import camera, pixels
from robustvision_core.data.poses.pinhole import project
from robustvision_core.errors import DataError, UserError


def load(split: str = "train", **options: object) -> PoseSet:
    return load_poses("drones", split, **({"cache": False, "count": 12} | options))  # type: ignore[arg-type]


def same(one: PoseSet, two: PoseSet) -> bool:
    return all(torch.equal(getattr(one, f), getattr(two, f)) for f in ("images", "R", "t", "keypoints_2d", "boxes"))


def test_an_item_depends_on_seed_split_and_index_alone() -> None:
    few, many = load(), load(count=30)
    assert same(few, many.take(torch.arange(12)))
    torch.manual_seed(9)
    assert same(load(), few)
    for other in (load("val"), load("test"), load(seed=1)):
        assert not torch.isclose(other.t, few.t).any()
        assert (other.images != few.images).float().mean() > 0.9


def test_items_are_drawn_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load()
    monkeypatch.setattr(drones, "CHUNK", 1)
    assert same(load(), whole)


@pytest.mark.parametrize("drone", ["m2ed", "tello"])
@pytest.mark.parametrize("size", ["tiny", (200, 150)])
def test_keypoints_are_inside_and_poses_in_range(drone: str, size: object) -> None:
    data = load(drone=drone, size=size, count=100, margin=5, distance=(0.8, 1.3), tilt=0.5)
    width, height = pixels(size)  # type: ignore[arg-type]
    assert data.shape == (3, height, width)
    assert data.visible.all()
    assert data.keypoints_2d.amin() >= 5
    assert (data.keypoints_2d <= torch.tensor([width - 5, height - 5])).all()
    assert 0.8 <= data.t[:, 2].min() < 0.9
    assert 1.2 < data.t[:, 2].max() <= 1.3
    # pitch and roll of at most 0.5 each turn the drone's axis from the image's vertical by at most that of both
    leaning = torch.acos((-data.R[:, 1, 1]).clamp(-1, 1))
    assert leaning.max() <= math.acos(math.cos(0.5) ** 2) + 1e-4
    assert leaning.max() > 0.4
    noses = torch.atan2(data.R[:, 0, 2], data.R[:, 2, 2])
    assert torch.histc(noses, 4, -math.pi, math.pi).min() > 8  # every quarter of the circle


def test_the_camera_is_that_of_uava() -> None:
    K = camera((320, 240))
    # the published code: width / 2 over the tangent of half of 64.69 degrees, 252.6 pixels
    assert K[0, 0] == K[1, 1] == pytest.approx(252.6, abs=0.1)
    assert math.degrees(2 * math.atan(160 / float(K[0, 0]))) == pytest.approx(64.69, abs=1e-4)
    assert K[:2, 2].tolist() == [160, 120]
    torch.testing.assert_close(camera((640, 480))[:2], 2 * K[:2])


def test_the_drone_is_drawn_where_the_pose_says() -> None:
    """Against the same scenes without a drone, pixels change inside its outline and nowhere else."""
    data = load(noise=0.0, count=16)
    empty = drones.Scenes("m2ed", (128, 96), 0, 0.7, 1.5, 0.6, 4.0, 0.0)
    far = torch.tensor([0.0, 0, 1e4]).expand(16, 3)
    ground = drones.photograph(empty, 0, torch.arange(16), data.R, far)
    changed = (data.images.int() - ground.int()).abs().amax(1) > 2
    mesh = data.objects[0].mesh
    assert mesh is not None
    mask = render_mesh(mesh.vertices, mesh.faces, mesh.colours, data.R, data.t, data.K, (128, 96)).mask
    assert not changed[mask == 0].any()
    assert changed[mask > 0].float().mean() > 0.8
    places = [(seen > 0).nonzero() for seen in mask]
    outlines = torch.stack([torch.cat([p.amin(0).flip(0), p.amax(0).flip(0) + 1]) for p in places])
    limits = data.boxes.clamp_min(0).minimum(torch.tensor([128.0, 96, 128, 96]))
    beyond = (outlines - limits) * torch.tensor([-1, -1, 1, 1])  # how far the picture reaches out of the box
    assert beyond.max() < 1
    assert beyond.abs().median() < 1  # a disc seen from its edge may fall between the samples: not all of them


def test_the_tello_is_four_times_smaller() -> None:
    sets = [load(drone=name, count=60) for name in ("m2ed", "tello")]
    sides = [(d.boxes[:, 2:] - d.boxes[:, :2]).norm(dim=1).median() for d in sets]
    assert 3 < float(sides[0] / sides[1]) < 5


def test_noise_has_the_deviation_asked_for() -> None:
    clean, noisy = (load(noise=n, count=30).images.double() for n in (0.0, 8.0))
    inner = (clean > 60) & (clean < 195)
    gap = (noisy - clean)[inner]
    assert abs(float(gap.mean())) < 0.1
    assert float(gap.std()) == pytest.approx(math.sqrt(64 + 1 / 6), rel=0.02)  # both are rounded


def test_images_are_kept_and_reused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"root": tmp_path, "cache": True}
    first = load(**options)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("drones-")
    monkeypatch.setattr(drones, "draw", lambda *_: pytest.fail("was drawn again"))
    assert same(load(**options), first)
    with pytest.raises(pytest.fail.Exception):
        load(**options, seed=1)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other key", "other shape", "pickled"])
def test_a_damaged_file_is_made_again(tmp_path: pathlib.Path, damage: str) -> None:
    options = {"root": tmp_path, "cache": True}
    first = load(**options)
    (file,) = (tmp_path / "cache").iterdir()
    with np.load(file) as opened:
        held = dict(opened)
    if damage in ("truncated", "empty"):
        file.write_bytes(file.read_bytes()[: 1000 if damage == "truncated" else 0])
    elif damage == "other key":
        np.savez(file, **(held | {"key": np.array("other"), "images": 255 - held["images"]}))
    elif damage == "other shape":
        np.savez(file, **(held | {"images": held["images"][:5]}))
    else:
        np.savez(file, **(held | {"R": np.array([{}], dtype=object)}))
    assert same(load(**options), first)
    with np.load(file) as opened:
        assert np.array_equal(opened["images"], held["images"])
    assert len(list(file.parent.iterdir())) == 1


def test_without_a_writable_folder_images_are_drawn_all_the_same(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert same(load(root=tmp_path, cache=True), load())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"drone": "m3"}, UserError, "unknown drone 'm3'.*m2ed"),
        ({"size": "huge"}, DataError, "size is 'huge', expected tiny, small, WxH"),
        ({"size": (128, 96, 3)}, DataError, "size is"),
        ({"size": "16x16"}, DataError, "expected 32 to 4096"),
        ({"count": 0}, DataError, "count is 0"),
        ({"distance": (0.1, 1)}, DataError, "expected 0.4 <= near <= far"),
        ({"distance": (2, 1)}, DataError, "expected 0.4 <= near <= far"),
        ({"margin": 60}, DataError, "margin 60"),
        ({"distance": (0.4, 0.4), "margin": 30}, DataError, "found no pose of the m2ed .* raise the distance"),
    ],
)
def test_wrong_options(options: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load(**options)


@pytest.mark.parametrize(("size", "expected"), [("small", (320, 240)), ("160x120", (160, 120)), ([64, 48], (64, 48))])
def test_sizes_by_name_text_and_pair(size: object, expected: tuple[int, int]) -> None:
    assert pixels(size) == expected  # type: ignore[arg-type]


def test_keypoints_2d_are_the_projections() -> None:
    data = load(count=5)
    points = data.objects[0].keypoints.double()
    got = project(points, data.R.double(), data.t.double(), data.K.double())
    torch.testing.assert_close(data.keypoints_2d.double(), got, rtol=0, atol=1e-4)
    assert data.K.shape == (5, 3, 3)
