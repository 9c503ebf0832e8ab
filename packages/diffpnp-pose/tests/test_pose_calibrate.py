"""`calibrate`: the camera of rendered photos of a board, and what `solve` makes of its file."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch
from diffpnp_pose import Distortion, project, so3_exp, undistort_points
from diffpnp_pose.cli import main
from diffpnp_pose.cli.camera import read_camera

F = torch.float64
K = torch.tensor([[400.0, 0, 322], [0, 405, 238], [0, 0, 1]], dtype=F)
LENS = Distortion(torch.tensor([-0.2, 0.05, 0.001, -0.0005, 0.0], dtype=F))
SIZE = (640, 480)
COLUMNS, ROWS = 7, 5  # inner corners


def rays_of_pixels() -> torch.Tensor:
    """The rays (4 H W, 3) of four samples a pixel, through the lens."""
    y, x = torch.meshgrid(torch.arange(0, SIZE[1], 0.5, dtype=F), torch.arange(0, SIZE[0], 0.5, dtype=F), indexing="ij")
    pixels = torch.stack([x, y], -1).view(-1, 2) - 0.25  # four samples a pixel, around its centre
    ideal = undistort_points(pixels, K, LENS)
    return torch.cat([(ideal - K[:2, 2]) / K.diagonal()[:2], torch.ones(len(ideal), 1, dtype=F)], 1)


def photo(camera_rays: torch.Tensor, w: list[float], t: list[float]) -> np.ndarray:
    """A board of unit squares: the ray of every pixel, cut with the board's plane."""
    R, T = so3_exp(torch.tensor(w, dtype=F)), torch.tensor(t, dtype=F)
    rays = camera_rays @ R
    origin = -T @ R
    board = origin[:2] - rays[:, :2] * origin[2] / rays[:, 2:]
    inside = (board > -1) & (board < torch.tensor([COLUMNS, ROWS], dtype=F))
    white = (board.floor().sum(1) % 2).where(inside.all(1), torch.ones(()).double()).nan_to_num(1.0)
    grey = 40 + 180 * white.view(2 * SIZE[1], 2 * SIZE[0])
    return grey.view(SIZE[1], 2, SIZE[0], 2).mean((1, 3)).round().numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("board")
    views = [
        ([0.0, 0.0, 0.0], [-3.0, -2.0, 7.0]),
        ([0.5, 0.0, 0.1], [-3.5, -2.5, 8.0]),
        ([-0.5, 0.1, 0.0], [-2.5, -1.5, 8.0]),
        ([0.0, 0.5, 0.0], [-2.0, -2.0, 8.0]),
        ([0.1, -0.5, 0.2], [-3.5, -2.0, 8.0]),
        ([0.3, 0.3, -0.3], [-4.0, -0.5, 9.0]),
    ]
    rays = rays_of_pixels()
    for number, view in enumerate(views):
        assert cv2.imwrite(str(folder / f"{number}.png"), photo(rays, *view))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_the_camera_of_the_photos_is_found_and_solve_reads_it(
    photos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "camera.json"
    command = ["calibrate", "--images", str(photos), "--board", f"{COLUMNS}x{ROWS}", "--square", "0.03"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "6 images of 640x480" in printed.out
    assert "broken.png: no image" in printed.err
    held = json.loads(out.read_text())
    assert held["rms_px"] < 0.2
    camera = read_camera(str(out))
    torch.testing.assert_close(camera.K, K, rtol=0, atol=2.5)
    pixels = torch.tensor([[60.0, 60], [320, 240], [560, 400]], dtype=F)
    seen = undistort_points(pixels, camera.K, camera.distortion)
    torch.testing.assert_close(seen, undistort_points(pixels, K, LENS), rtol=0, atol=3.0)

    z = torch.randn(12, 3, dtype=F) * 0.3
    w, t = torch.tensor([0.2, -0.3, 0.1], dtype=F), torch.tensor([0.1, -0.1, 3.0], dtype=F)
    x = project(z, so3_exp(w), t, camera.K, camera.distortion)
    (tmp_path / "points.json").write_text(json.dumps({"points_2d": x.tolist(), "points_3d": z.tolist()}))
    solve = ["solve", "--file", str(tmp_path / "points.json"), "--camera-file", str(out)]
    assert main([*solve, "--out", str(tmp_path / "poses.json")]) == 0
    (pose,) = json.loads((tmp_path / "poses.json").read_text())["poses"]
    torch.testing.assert_close(torch.tensor(pose["rotation_vector"]).double(), w, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(pose["translation"]).double(), t, rtol=0, atol=1e-6)
    assert pose["rms_px"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "--images", "/no/such"], "no such folder"),
        (["calibrate", "--images", ".", "--board", "nine"], "expected columns x rows"),
        (["calibrate", "--images", ".", "--board", "2x6"], "at least 3 inner corners"),
        (["calibrate", "--images", ".", "--square", "0"], "square must be positive"),
        (["solve", "--file", "a.csv", "--camera-file", "/no/camera.json"], "cannot be read as a camera"),
        (["solve", "--file", "a.csv", "--camera-file", "a", "--camera", "1", "1", "0", "0"], "give one"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_too_few_views_are_refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--images", str(tmp_path), "--out", str(tmp_path / "c.json")]) == 2
    assert "was found in 0 images, at least 3 are needed" in capsys.readouterr().err
    (tmp_path / "c.json").write_text('{"K": [[1, 2], [3, 4]]}')
    assert main(["solve", "--file", "a.csv", "--camera-file", str(tmp_path / "c.json")]) == 2
    assert "holds no camera" in capsys.readouterr().err
