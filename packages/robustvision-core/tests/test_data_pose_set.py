from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from robustvision_core.data import Mesh, PoseBatches, PoseObject, PoseSet, load_poses, pose_names, register_poses
from robustvision_core.data.poses.pinhole import nearest_rotation, project
from robustvision_core.data.registry.pose_sets import POSE_SETS
from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError, UserError
from torch import Tensor

K = torch.tensor([[50.0, 0, 16], [0, 60, 12], [0, 0, 1]])


def rotations(n: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, dtype=torch.float64))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return (q * torch.linalg.det(q)[:, None, None]).float()


def make(n: int = 11, images: int = 11) -> PoseSet:
    cube = torch.tensor([[x, y, z] for x in (-0.1, 0.1) for y in (-0.1, 0.1) for z in (-0.1, 0.1)])
    mesh = Mesh(cube, torch.tensor([[0, 1, 2], [4, 5, 6]]), torch.rand(2, 3))
    kinds = (PoseObject("cube", cube, 0.35, mesh), PoseObject("stick", cube[:3], 0.2))
    t = torch.rand(n, 3) * torch.tensor([0.4, 0.4, 1]) + torch.tensor([-0.2, -0.2, 1])
    return PoseSet(
        torch.randint(0, 256, (images, 3, 24, 32), dtype=torch.uint8),
        rotations(n),
        t,
        K,
        kinds,
        object_id=torch.arange(n) % 2,
        image_index=torch.arange(n) % images,
        ids=torch.arange(n) * 10 + 3,
        name="made",
    )


def test_pixels_are_counted_from_the_corner_of_the_image() -> None:
    """A point straight ahead meets the image's middle, one on the frustum's edge its border."""
    points = torch.tensor([[0.0, 0, 0], [0.32, 0, 0], [0, -0.2, 0], [-0.33, 0, 0]])
    data = PoseSet(
        torch.zeros(1, 1, 24, 32, dtype=torch.uint8),
        torch.eye(3)[None],
        torch.tensor([[0.0, 0, 1]]),
        K,
        (PoseObject("points", points, 1.0),),
    )
    torch.testing.assert_close(data.keypoints_2d[0], torch.tensor([[16.0, 12], [32, 12], [16, 0], [-0.5, 12]]))
    assert data.visible.tolist() == [[True, True, True, False]]


def test_derived_fields_agree_with_a_plain_loop() -> None:
    data = make()
    for i in range(len(data)):
        kind = data.objects[int(data.object_id[i])]
        for p in range(8):
            own = p < len(kind.keypoints)
            point = kind.keypoints[p].double() if own else torch.zeros(3).double()
            x, y, z = (data.R[i].double() @ point + data.t[i].double()).tolist()
            u, v = 50 * x / z + 16, 60 * y / z + 12
            assert data.keypoints_2d[i, p].tolist() == pytest.approx([u, v], abs=1e-4)
            assert bool(data.visible[i, p]) == (own and z > 0 and 0 <= u <= 32 and 0 <= v <= 24)
        vertices = kind.keypoints if kind.mesh is None else kind.mesh.vertices
        seen = project(vertices, data.R[i], data.t[i], K)
        expected = [*seen.amin(0).tolist(), *seen.amax(0).tolist()]
        assert data.boxes[i].tolist() == pytest.approx(expected, abs=1e-3)
    assert data.keypoints_3d.shape == (11, 8, 3)
    assert torch.equal(data.keypoints_3d[1, 3:], torch.zeros(5, 3))


def test_points_behind_the_camera_are_not_visible() -> None:
    points = torch.tensor([[0.0, 0, 0], [0, 0, -2]])
    blank = torch.zeros(1, 1, 24, 32, dtype=torch.uint8)
    data = PoseSet(blank, torch.eye(3)[None], torch.tensor([[0.0, 0, 1]]), K, (PoseObject("p", points, 1.0),))
    assert data.visible.tolist() == [[True, False]]


@pytest.mark.parametrize("chosen", [[4, 0, 9], [], torch.tensor([2, 2]), torch.arange(11) > 6])
def test_take_keeps_items_whole(chosen: object) -> None:
    data = make(11, images=4)
    part = data.take(chosen)
    rows = torch.as_tensor(chosen)
    rows = (rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows).long()
    assert torch.equal(part.images[part.image_index], data.images[data.image_index[rows]])
    for field in ("R", "t", "K", "object_id", "keypoints_2d", "visible", "boxes", "ids"):
        assert torch.equal(getattr(part, field), getattr(data, field)[rows]), field
    assert len(part.images) == len(data.image_index[rows].unique())
    assert part.objects is data.objects


def test_split_is_disjoint_and_stratified() -> None:
    data = make(40, images=40)
    one, two = data.split([30, 10], seed=1)
    assert sorted([*one.ids.tolist(), *two.ids.tolist()]) == data.ids.tolist()
    assert one.object_id.bincount().tolist() == [15, 15]
    assert torch.equal(data.split([30, 10], seed=1)[1].ids, two.ids)
    assert not torch.equal(data.split([30, 10], seed=2)[1].ids, two.ids)


def bad_rotation(data: PoseSet) -> Tensor:
    R = data.R.clone()
    R[3, :, 0] *= -1
    return R


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"images": d.images.float()}, r"images must be \(M, C, H, W\) uint8, got \(11, 3, 24, 32\) float32"),
        (lambda d: {"R": d.R[:, 0]}, r"R must be \(11, 3, 3\) float32, got \(11, 3\) float32"),
        (lambda d: {"t": d.t.double()}, r"t must be \(11, 3\) float32, got \(11, 3\) float64"),
        (lambda d: {"R": bad_rotation(d)}, "of item 3, R is no rotation matrix; 1 items have this"),
        (lambda d: {"R": d.R * 1.01}, "of item 0, R is no rotation matrix; 11 items"),
        (lambda d: {"t": -d.t}, "t is not in front of the camera"),
        (lambda d: {"t": d.t * torch.nan}, "t holds a value that is not finite"),
        (lambda d: {"K": -K}, "K is no camera matrix"),
        (lambda d: {"K": K.clone().index_fill_(0, torch.tensor([2]), 1.0)}, "K is no camera matrix"),
        (lambda d: {"object_id": d.object_id + 1}, r"object_id holds 2, expected 0\.\.1"),
        (lambda d: {"image_index": d.image_index - 1}, r"image_index holds -1, expected 0\.\.10"),
        (lambda d: {"ids": d.ids.float()}, r"ids must be \(11,\) int64"),
        (lambda d: {"visible": d.visible[:, :4]}, r"visible must be \(11, 8\) bool, got \(11, 4\) bool"),
        (lambda d: {"keypoints_2d": d.keypoints_2d[:, :3]}, r"keypoints_2d must be \(11, 8, 2\)"),
        (lambda d: {"objects": ()}, "at least one object"),
    ],
)
def test_what_is_wrong_is_said(change: object, message: str) -> None:
    data = make()
    with pytest.raises(DataError, match=message):
        replace(data, **change(data))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("vertices", "faces", "colours", "message"),
    [
        (torch.zeros(3), torch.zeros(1, 3).long(), torch.zeros(1, 3), "vertices"),
        (torch.zeros(4, 3), torch.zeros(1, 4).long(), torch.zeros(1, 4), "faces"),
        (torch.zeros(4, 3), torch.zeros(1, 3).long(), torch.zeros(4, 3), "colours"),
        (torch.zeros(4, 3), torch.full((1, 3), 4), torch.zeros(1, 3), r"faces holds 4, expected 0\.\.3"),
    ],
)
def test_meshes_are_checked(vertices: Tensor, faces: Tensor, colours: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Mesh(vertices, faces, colours)


def test_nearest_rotation_is_the_polar_factor() -> None:
    from scipy.linalg import polar

    R = rotations(6).double() + 0.003 * torch.randn(6, 3, 3, dtype=torch.float64)
    got = nearest_rotation(R, "some")
    for one, two in zip(R, got, strict=True):
        torch.testing.assert_close(two.double(), torch.from_numpy(polar(one.numpy())[0]), rtol=0, atol=1e-6)
    for wrong in (-R, R * 1.1, R * torch.nan):
        with pytest.raises(DataError, match="some: "):
            nearest_rotation(wrong, "some")


def join(batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(part) for part in zip(*batches, strict=True)]


def test_batches_hold_the_items() -> None:
    data = make(11, images=4)
    batches = PoseBatches(data, 4, shuffle=True, seed=3, mean=0.5, std=0.25)
    assert len(batches) == 3
    images, points, visible, solid, R, t, intrinsics, index = join(list(batches.epoch(0)))
    assert sorted(index.tolist()) == list(range(11))
    torch.testing.assert_close(images, (data.images[data.image_index[index]] / 255 - 0.5) / 0.25, rtol=0, atol=1e-5)
    expected = (data.keypoints_2d, data.visible, data.keypoints_3d, data.R, data.t, data.K)
    for got, whole in zip((points, visible, solid, R, t, intrinsics), expected, strict=True):
        assert torch.equal(got, whole[index])
    inside = visible[..., None].expand_as(points)
    again = project(solid, R, t, intrinsics)
    torch.testing.assert_close(again[inside], points[inside], rtol=0, atol=1e-4)


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    return images * torch.rand(len(images), 1, 1, 1, generator=generator)


@pytest.mark.parametrize("augment", [None, jitter])
def test_batches_are_a_function_of_seed_epoch_and_number(augment: object) -> None:
    data = make(11, images=4)
    options = {"shuffle": True, "seed": 5, "augment": augment}
    whole = list(PoseBatches(data, 4, **options).epoch(2))
    torch.rand(3)
    again = list(PoseBatches(data, 4, **options).epoch(2, start=1))
    for one, two in zip(whole[1:], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(whole[0].index, next(PoseBatches(data, 4, **options).epoch(3)).index)
    # two processes together see one process's batches, but for what does not divide
    ranks = [list(PoseBatches(data, 4, rank=r, world_size=2, **options).epoch(2)) for r in (0, 1)]
    for one, *parts in zip(whole, *ranks, strict=True):
        both = join(parts)
        assert all(torch.equal(a[: len(b)], b) for a, b in zip(one, both, strict=True))


def test_default_statistics_are_those_of_the_images() -> None:
    batches = PoseBatches(make(), 4)
    levels = batches.data.images.double() / 255
    torch.testing.assert_close(batches.mean.double(), levels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(batches.std.double(), levels.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)


def test_pose_sets_have_their_own_table() -> None:
    from robustvision_core.data import names

    assert {"drones", "uava", "lmo", "bop:PATH"} <= pose_names().keys()
    assert not {"drones", "lmo"} & names().keys()
    assert all(about and "\n" not in about for about in pose_names().values())

    @register_poses("made", "some poses", ("train",))
    def load_made(query: Query, n: int = 3) -> PoseSet:
        return replace(make(n, n), name=query.title)

    try:
        assert len(load_poses("made", n=5)) == 5
        with pytest.raises(UserError, match="unknown option of made 'm'"):
            load_poses("made", m=5)
    finally:
        del POSE_SETS.table["made"]
    with pytest.raises(UserError, match="unknown pose set 'drone': did you mean 'drones'"):
        load_poses("drone")
    with pytest.raises(UserError, match="pose set 'bop' is written bop:PATH"):
        load_poses("bop")
    with pytest.raises(UserError, match="unknown split of lmo 'train'"):
        load_poses("lmo", "train")
