"""Crops: what the camera, the keypoints and the pose become, against the pinhole camera itself."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace

import pytest
import torch
from diffpnp_pose import project, so3_exp
from diffpnp_pose.cli.crops.batches import CropBatches
from diffpnp_pose.cli.crops.boxes import Boxes
from diffpnp_pose.cli.crops.crop_set import CropSet, cut, opaque, window
from diffpnp_pose.cli.crops.scene import compose, cover, photograph
from diffpnp_pose.cli.crops.warp import Camera, follow, mapped, similarities, staying, warp
from diffpnp_pose.cli.recipes import CropOptions
from robustvision_core.data import PoseObject, PoseSet
from robustvision_core.errors import DataError

POINTS = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0.1, 0.1, 0.05]])


def photos(count: int = 3, size: tuple[int, int] = (60, 40)) -> PoseSet:
    """Images in which every pixel says its place, red its column and green its row."""
    width, height = size
    columns, rows = torch.arange(width).expand(height, width), torch.arange(height)[:, None].expand(height, width)
    image = torch.stack([4 * columns, 4 * rows, torch.full_like(columns, 9)]).to(torch.uint8)
    draw = torch.Generator().manual_seed(0)
    R = so3_exp(torch.randn(count, 3, generator=draw))
    t = torch.tensor([0.02, -0.03, 0.8]).repeat(count, 1)
    K = torch.tensor([[70.0, 0, 31], [0, 72, 19], [0, 0, 1]])
    return PoseSet(image.expand(count, 3, height, width).contiguous(), R, t, K, (PoseObject("thing", POINTS, 0.2),))


def test_crops_show_the_box_and_keep_the_camera_true() -> None:
    poses = photos()
    crops = cut(poses, (32, 32), 1.5)
    assert crops.images.shape == (3, 4, 32, 32)
    expected = project(crops.keypoints_3d, crops.R, crops.t, crops.K)
    assert torch.allclose(crops.keypoints_2d, expected, atol=1e-3)
    assert torch.equal(crops.source_K, poses.K)
    assert bool(((crops.keypoints_2d > 0) & (crops.keypoints_2d < 32)).all())
    # a smooth image is scaled as its coordinates are: the colour at a keypoint says where it was in the photo
    inside = poses.visible & (crops.keypoints_2d > 1).all(-1) & (crops.keypoints_2d < 31).all(-1)
    for k in range(3):
        for (u, v), (x, y), seen in zip(crops.keypoints_2d[k], poses.keypoints_2d[k], inside[k], strict=True):
            if seen and 1 < x < 59 and 1 < y < 39:
                red, green = crops.images[k, :2, int(v), int(u)].tolist()
                assert abs(red / 4 + 0.5 - x) < 1.5
                assert abs(green / 4 + 0.5 - y) < 1.5


def test_a_window_beyond_the_photo_is_uncovered_there() -> None:
    image = torch.full((3, 10, 10), 200, dtype=torch.uint8)
    seen = window(image, [-5, 0, 5, 10], (10, 10))
    assert seen[3, :, :4].eq(0).all()
    assert seen[3, :, 6:].eq(255).all()
    assert seen[:3, :, 6:].eq(200).all()
    assert window(image, [20, 20, 30, 30], (4, 4)).eq(0).all()


def test_taking_items_keeps_the_photos_cameras() -> None:
    poses = photos()
    K = poses.K.clone()
    K[:, 0, 0] = K[:, 1, 1] = torch.tensor([70.0, 80, 90])
    crops = cut(replace(poses, K=K, keypoints_2d=None, visible=None), (32, 32), 1.5)
    some = crops.take([2, 0])
    assert isinstance(some, CropSet)
    assert torch.equal(some.source_K, crops.source_K[[2, 0]])
    assert torch.equal(some.take(torch.tensor([False, True])).source_K, crops.source_K[[0]])
    assert torch.equal(some.images[some.image_index], crops.images[[2, 0]])
    assert opaque(some).images.shape[1] == 3


def test_a_warped_image_has_the_camera_that_is_said() -> None:
    draw = torch.Generator().manual_seed(1)
    maps = similarities(64, (32, 24), 180.0, 1.5, 0.2, draw).double()
    K = torch.tensor([[50.0, 1.5, 17], [0, 55, 11], [0, 0, 1]], dtype=torch.float64).expand(64, 3, 3)
    R, t = so3_exp(torch.randn(64, 3, generator=draw).double()), torch.tensor([0.1, 0.0, 2.0]).double().expand(64, 3)
    z = POINTS.double().expand(64, 5, 3)
    new = follow(Camera(K, R, t), maps)
    assert torch.allclose(project(z, new.R, new.t, new.K), mapped(project(z, R, t, K), maps), atol=1e-9)
    assert torch.allclose(new.K[:, 1, 0], torch.zeros(64).double())
    assert bool((new.K[:, [0, 1], [0, 1]] > 0).all())
    assert torch.allclose(torch.linalg.det(new.R), torch.ones(64).double())
    assert torch.allclose(new.t[:, 2], t[:, 2])


def test_warping_moves_pixels_as_points() -> None:
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    places = torch.tensor([[30.0, 22.0], [40.0, 30.0]])
    spots = torch.stack([(-((x - u) ** 2 + (y - v) ** 2) / 8).exp() for u, v in places]).expand(5, 2, 48, 64)
    maps = similarities(5, (64, 48), 40.0, 1.3, 0.05, torch.Generator().manual_seed(2))
    moved = warp(spots, maps)
    weight = moved / moved.sum((2, 3), keepdim=True)
    centre = torch.stack([(weight * x).sum((2, 3)), (weight * y).sum((2, 3))], -1)
    assert torch.allclose(centre, mapped(places.expand(5, 2, 2), maps), atol=0.02)


def test_points_never_leave_the_image() -> None:
    points = torch.tensor([[[1.0, 1.0], [31.0, 23.0]]]).expand(200, 2, 2)
    maps = similarities(200, (32, 24), 30.0, 1.3, 0.1, torch.Generator().manual_seed(3))
    kept = staying(maps, points, (32, 24))
    seen = mapped(points, kept)
    assert bool(((seen >= 0) & (seen <= torch.tensor([32.0, 24.0]))).all())
    inside = ((mapped(points, maps) >= 0) & (mapped(points, maps) <= torch.tensor([32.0, 24.0]))).flatten(1).all(1)
    assert torch.equal(kept[inside], maps[inside])
    assert 0 < int(inside.sum()) < 200


def test_scenes_are_behind_before_and_around_the_object() -> None:
    draw = torch.Generator().manual_seed(4)
    bank = torch.full((4, 3, 16, 16), 255, dtype=torch.uint8)
    half = torch.zeros(40, 4, 16, 16)
    half[:, 3, :8] = 1  # the upper half covered and black
    scenes = compose(half, bank, draw)
    assert scenes[:, :, :8].eq(0).all()
    assert scenes[:, :, 8:].eq(1).all()
    hidden = cover(torch.zeros(40, 3, 16, 16), bank, 0.5, 0.4, draw).mean((1, 2, 3))
    assert 5 < int((hidden > 0.001).sum()) < 35
    assert float(hidden.max()) < 0.45
    assert cover(scenes, bank, 0.0, 0.4, draw).equal(scenes)
    lit = photograph(torch.full((40, 3, 16, 16), 0.5), draw)
    assert float(lit.min()) >= 0
    assert float(lit.max()) <= 1
    assert float(lit.mean((2, 3)).std()) > 0.03


def test_batches_are_a_function_of_their_number_and_split_among_processes() -> None:
    crops = cut(photos(6), (32, 32), 1.5)
    bank = torch.randint(0, 255, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))

    def made(**options: int) -> CropBatches:
        return CropBatches(crops, bank, CropOptions(), 4, shuffle=True, seed=3, mean=0.5, std=0.25, **options)

    first, again = list(made().epoch(1)), list(made().epoch(1, 1))
    assert torch.equal(first[1].images, again[0].images)
    assert torch.equal(first[1].K, again[0].K)
    parts = [next(made(rank=rank, world_size=2).epoch(1)) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.images for part in parts]), first[0].images)
    assert torch.equal(torch.cat([part.keypoints_2d for part in parts]), first[0].keypoints_2d)
    assert not torch.equal(next(made().epoch(2)).images, first[0].images)
    for batch in first:
        seen = project(batch.keypoints_3d, batch.R, batch.t, batch.K)
        assert torch.allclose(seen, batch.keypoints_2d, atol=1e-3)


def test_boxes_by_file_and_by_bop_number(tmp_path: pathlib.Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(
        "file, left, top, right, bottom, score\na.png,1,2,30,40,0.2\na.png,5,6,35,46,0.9\n000003,0,0,9,9,\n"
    )
    held = Boxes.read(str(table))
    assert held.of("photos/a.png") == held.of("a.png") == (5, 6, 35, 46)
    assert held.of("test/000002/rgb/000003.jpg") == (0, 0, 9, 9)
    with pytest.raises(DataError, match=r"no box of b\.png"):
        held.of("b.png")
    detections = tmp_path / "boxes.json"
    rows = [{"scene_id": 2, "image_id": 3, "category_id": 5, "bbox": [10, 20, 30, 40], "score": s} for s in (0.5, 0.1)]
    rows[1]["bbox"] = [0, 0, 1, 1]
    detections.write_text(json.dumps(rows))
    held = Boxes.read(str(detections))
    assert held.of("lmo/test/000002/rgb/000003.jpg") == (10, 20, 40, 60)
    poses = replace(photos(1), ids=torch.tensor([2 * 10**9 + 3 * 1000]))
    assert held.of_set(poses).tolist() == [[10, 20, 40, 60]]
    for text in ("[{}]", "{", '[{"scene_id": 1, "image_id": 1, "bbox": [0, 0, -1, 2]}]'):
        detections.write_text(text)
        with pytest.raises(DataError, match="boxes"):
            Boxes.read(str(detections))
