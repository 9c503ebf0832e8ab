from __future__ import annotations

import math

import pytest
import torch
from robustvision_core.data import overlay, render_mesh
from robustvision_core.data.offline import render as module
from robustvision_core.data.offline.drone_meshes import KEYPOINTS, drone_mesh, drone_object
from robustvision_core.data.offline.render import rasterise, unpack
from torch import Tensor

SIZE = (20, 14)
K = torch.tensor([[22.0, 0.7, 9.3], [0, 25, 7.4], [0, 0, 1]])


def cast(corners: Tensor, size: tuple[int, int], supersample: int = 1) -> tuple[Tensor, Tensor]:
    """Face and depth at every sample by intersecting its ray with every triangle, in float64."""
    width, height = size[0] * supersample, size[1] * supersample
    faces, depths = torch.full((height, width), -1), torch.full((height, width), math.inf, dtype=torch.float64)
    inverse = torch.linalg.inv(K.double())
    for row in range(height):
        for column in range(width):
            place = torch.tensor([(column + 0.5) / supersample, (row + 0.5) / supersample, 1], dtype=torch.float64)
            ray = inverse @ place  # its z is 1
            share = torch.linalg.solve(corners.double().mT, ray.expand(len(corners), 3))  # of the corners, up to depth
            depth = 1 / share.sum(1)
            hit = (share > 0).all(1)
            if hit.any():
                nearest = torch.where(hit, depth, math.inf).argmin()
                faces[row, column], depths[row, column] = nearest, depth[nearest]
    return faces, depths


def triangles(count: int) -> Tensor:
    flat = (torch.rand(count, 3, 3) - 0.5) * torch.tensor([1.4, 1.0, 0.8])
    return flat + torch.tensor([0.0, 0, 1.2])


@pytest.mark.parametrize("supersample", [1, 3])
def test_the_nearest_face_of_every_sample_is_that_of_ray_casting(supersample: int) -> None:
    corners = triangles(12)
    face, depth = unpack(rasterise(corners[None], K[None], SIZE, supersample))
    expected, exact = cast(corners, SIZE, supersample)
    assert torch.equal(face[0], expected)
    assert (expected >= 0).float().mean() > 0.3
    torch.testing.assert_close(depth[0].double(), exact, rtol=1e-5, atol=0)


def test_neighbours_share_no_sample_and_leave_none_out() -> None:
    """A plane of many triangles covers each sample of its outline exactly once."""
    torch.manual_seed(3)
    n = 9
    grid = torch.stack(torch.meshgrid(torch.arange(n) - 4.0, torch.arange(n) - 4.0, indexing="ij"), -1)
    grid[1:-1, 1:-1] += 0.6 * torch.rand(n - 2, n - 2, 2) - 0.3
    points = torch.cat([grid, torch.full((n, n, 1), 5.0)], -1).flatten(0, 1)
    i = torch.tensor([r * n + c for r in range(n - 1) for c in range(n - 1)])
    faces = torch.cat([torch.stack([i, i + 1, i + n], 1), torch.stack([i + n + 1, i + n, i + 1], 1)])
    sheet = torch.tensor([[40.0, 0, 60], [0, 40, 50], [0, 0, 1]])
    apart = rasterise(points[faces][:, None], sheet.expand(len(faces), 3, 3), (120, 100))  # each face alone
    assert ((apart >= 0).sum(0)[20:80, 30:90] == 1).all()
    assert (apart >= 0).sum(0).max() == 1


def test_depth_and_mask_of_a_slanted_square() -> None:
    corners = torch.tensor([[-1.0, -1, 3], [1, -1, 3], [1, 1, 5], [-1, 1, 5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = torch.tensor([[30.0, 0, 20], [0, 30, 15], [0, 0, 1]])
    seen = render_mesh(corners, faces, torch.ones(2, 3), torch.eye(3), torch.zeros(3), camera, (40, 30), supersample=8)
    # the plane z = 4 + y is met by the ray (., (v - 15) / 30, 1) at z = 4 / (1 - (v - 15) / 30), nearest at the top
    top = (torch.arange(30) + 1 / 16 - 15) / 30  # of the samples in a row of pixels, the plane is nearest in the first
    inside = seen.mask[:, 20] == 1
    torch.testing.assert_close(seen.depth[:, 20][inside], (4 / (1 - top))[inside], rtol=1e-5, atol=0)
    assert inside.sum() >= 15
    # a trapezium between v = 5 and 21, from 20 to 12 pixels wide
    assert float(seen.mask.sum()) == pytest.approx((21 - 5) * (20 + 12) / 2, rel=5e-3)
    assert seen.depth[seen.mask == 0].isinf().all()


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.1, math.pi])
def test_light_follows_lamberts_law_on_both_sides(turn: float) -> None:
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    colours = torch.tensor([[0.2, 0.6, 1.0]]).expand(2, 3)
    R = torch.tensor([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
    light = torch.tensor([0.3, -0.2, -0.9])
    t = torch.tensor([0.0, 0, 4])
    seen = render_mesh(corners, faces, colours, R, t, K, SIZE, light=light, ambient=0.3)
    normal = R[:, 2] * (-1 if R[2, 2] > 0 else 1)  # towards the camera
    gain = 0.3 + 0.7 * max(0.0, float(normal @ light / light.norm()))
    row, column = 7, 9
    assert seen.mask[row, column] == 1
    torch.testing.assert_close(seen.colour[row, column], gain * colours[0], rtol=1e-5, atol=1e-6)


def test_a_sample_at_a_pixels_centre_belongs_to_it() -> None:
    """Pixel (column 3, row 2) is [3, 4] x [2, 3]: a square over just that area covers it and nothing else."""
    x0, x1, y0, y1 = ((edge - centre) / f for edge, centre, f in ((3, 9, 20), (4, 9, 20), (2, 7, 20), (3, 7, 20)))
    corners = torch.tensor([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]])
    camera = torch.tensor([[20.0, 0, 9], [0, 20, 7], [0, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    seen = render_mesh(corners, faces, torch.ones(2, 3), torch.eye(3), torch.zeros(3), camera, SIZE, supersample=4)
    assert seen.mask.nonzero().tolist() == [[2, 3]]
    assert seen.mask[2, 3] == 1


def test_a_batch_is_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = drone_mesh("tello")
    t = torch.tensor([[0.0, 0, 0.15], [0.02, 0, 0.2], [0, 0.03, 0.3], [0.01, 0.01, 0.25]])
    R = torch.eye(3).repeat(4, 1, 1)
    arguments = (mesh.vertices, mesh.faces, mesh.colours)
    whole = render_mesh(*arguments, R.view(2, 2, 3, 3), t.view(2, 2, 3), K, SIZE)
    assert whole.colour.shape == (2, 2, 14, 20, 3)
    for i in range(4):
        one = render_mesh(*arguments, R[i], t[i], K, SIZE)
        for got, expected in zip(whole, one, strict=True):
            torch.testing.assert_close(got.flatten(0, 1)[i], expected)
    monkeypatch.setattr(module, "CHUNK", 1)
    again = render_mesh(*arguments, R.view(2, 2, 3, 3), t.view(2, 2, 3), K, SIZE)
    torch.testing.assert_close(again, whole)


def test_what_is_behind_or_beside_the_camera_is_left_out() -> None:
    mesh = drone_mesh("tello")
    arguments = (mesh.vertices, mesh.faces, mesh.colours, torch.eye(3))
    for t in ([0.0, 0, -1], [9.0, 0, 1], [0.0, -9, 1]):
        seen = render_mesh(*arguments, torch.tensor(t), K, SIZE)
        assert seen.mask.sum() == 0
    near = render_mesh(*arguments, torch.zeros(3), K, SIZE)  # the camera inside the drone
    assert near.colour.isfinite().all()
    assert near.mask.max() > 0


def test_overlay_mixes_by_coverage_and_opacity() -> None:
    seen = module.Render(torch.full((1, 2, 3), 0.5), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
    seen.colour[0, 1] = 0
    image = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    mixed = overlay(image, seen, 0.25)
    assert mixed[:, 0, 0].tolist() == [round(0.25 * 127.5 + 0.75 * 100)] * 3
    assert mixed[:, 0, 1].tolist() == [100] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": torch.zeros(2, 3)}, r"R is \(3, 3\) but t \(2, 3\)"),
        ({"size": (0, 3)}, r"size is \(0, 3\)"),
        ({"supersample": 0}, "supersample 0"),
    ],
)
def test_wrong_arguments(change: dict[str, object], message: str) -> None:
    mesh = drone_mesh("tello")
    options = {"t": torch.ones(3), "size": SIZE} | change
    with pytest.raises(ValueError, match=message):
        render_mesh(mesh.vertices, mesh.faces, mesh.colours, torch.eye(3), K=K, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(KEYPOINTS))
def test_drones_stand_on_their_keypoints(name: str) -> None:
    kind, mesh = drone_object(name), drone_mesh(name)
    gaps = torch.cdist(kind.keypoints[1:], mesh.vertices).amin(1)
    assert gaps.max() < 1e-6
    low, high = mesh.vertices.aminmax(dim=0)
    assert ((kind.keypoints[0] > low) & (kind.keypoints[0] < high)).all()
    gap = torch.pdist(mesh.vertices.double()).max()
    assert kind.diameter == pytest.approx(float(gap), rel=1e-5)
    assert mesh.faces.unique().tolist() == list(range(len(mesh.vertices)))


def test_the_tello_is_about_a_quarter_of_the_m2ed() -> None:
    assert 3 < drone_object("m2ed").diameter / drone_object("tello").diameter < 5


@pytest.mark.parametrize("name", list(KEYPOINTS))
def test_front_and_back_differ_to_the_eye(name: str) -> None:
    """Of the drone from opposite sides, pictures differ far more in colour than in outline."""
    mesh, kind = drone_mesh(name), drone_object(name)
    facing = torch.diag(torch.tensor([1.0, -1, -1]))
    turned = facing @ torch.diag(torch.tensor([-1.0, 1, -1]))
    tilt = torch.tensor([[1.0, 0, 0], [0, math.cos(0.5), -math.sin(0.5)], [0, math.sin(0.5), math.cos(0.5)]])
    R = torch.stack([tilt @ facing, tilt @ turned])
    t = torch.tensor([0, 0, 1.5 * kind.diameter]).expand(2, 3)
    camera = torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]])
    front, back = render_mesh(mesh.vertices, mesh.faces, mesh.colours, R, t, camera, (128, 96)).colour
    orange, blue = (
        (front - back)[:, :, c].clamp_min(0).sum() / front[:, :, c].sum() for c in (0, 2)
    )  # a red surplus where one has orange discs and the other blue ones, and the reverse
    assert orange > 0.15
    assert blue > 0.05
