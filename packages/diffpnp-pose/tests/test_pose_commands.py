"""`solve` and `render`."""

from __future__ import annotations

import json
import math
import pathlib

import pytest
import torch
from diffpnp_pose import project, so3_exp, solve_pnp
from diffpnp_pose.cli import main
from diffpnp_pose.cli.correspondences import read
from torch import Tensor

K = [[300.0, 0.0, 160.0], [0.0, 310.0, 120.0], [0.0, 0.0, 1.0]]


def made(n: int = 8, batch: int = 2, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    z, w = normal(n, 3), 0.6 * normal(batch, 3)
    t = torch.tensor([0.1, -0.1, 6.0], dtype=torch.float64) + 0.2 * normal(batch, 3)
    x = project(z, so3_exp(w), t, torch.tensor(K, dtype=torch.float64))
    return x + noise * normal(batch, n, 2), z, w, t


def written(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text())["poses"]


def test_json_with_common_points_gives_the_poses(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, z, w, t = made()
    held = {
        "K": K,
        "points_3d": z.tolist(),
        "items": [{"id": f"image {k}", "points_2d": x[k].tolist()} for k in (0, 1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(held))
    assert main(["solve", "--file", str(tmp_path / "a.json"), "--out", str(tmp_path / "poses.json")]) == 0
    poses = written(tmp_path / "poses.json")
    assert [pose["id"] for pose in poses] == ["image 0", "image 1"]
    for k, pose in enumerate(poses):
        assert pose["valid"]
        assert pose["points"] == 8
        torch.testing.assert_close(torch.tensor(pose["rotation_vector"]).double(), w[k], atol=1e-6, rtol=0)
        torch.testing.assert_close(torch.tensor(pose["translation"]).double(), t[k], atol=1e-6, rtol=0)
        torch.testing.assert_close(torch.tensor(pose["R"]).double(), so3_exp(w)[k], atol=1e-6, rtol=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    shown = [float(value) for value in lines[1].removeprefix("image 0").split()]
    assert shown[1:4] == pytest.approx([math.degrees(value) for value in w[0].tolist()], abs=6e-3)
    assert shown[4:7] == pytest.approx(t[0].tolist(), abs=6e-5)


@pytest.mark.parametrize("separator", [", ", ";", "\t"])
def test_csv_with_weights_and_items_of_several_lengths(separator: str, tmp_path: pathlib.Path, capsys) -> None:
    x, z, _, _ = made(noise=0.5)
    c = torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    lines = ["id, u, v, x, y, z, weight"]
    for name, k, n in (("a", 0, 8), ("b", 1, 6), ("c", 1, 3)):
        for i in range(n):
            lines.append(
                ", ".join([name, *(repr(value) for value in [*x[k, i].tolist(), *z[i].tolist(), float(c[i])])])
            )
    (tmp_path / "a.csv").write_text("\n".join(lines).replace(", ", separator))
    options = ["--camera", "300", "310", "160", "120", "--noise", "0.5", "--out", str(tmp_path / "poses.json")]
    assert main(["solve", "--file", str(tmp_path / "a.csv"), *options]) == 0
    assert "3  no valid pose: 4 points or more are needed" in capsys.readouterr().out
    poses = {pose["id"]: pose for pose in written(tmp_path / "poses.json")}
    assert [poses[name]["points"] for name in "abc"] == [8, 6, 3]
    assert not poses["c"]["valid"]
    assert poses["c"]["R"] is None
    for name, k, n in (("a", 0, 8), ("b", 1, 6)):
        alone = solve_pnp(x[k, :n], z[:n], torch.tensor(K, dtype=torch.float64), weights=c[:n])
        found = torch.tensor([*poses[name]["rotation_vector"], *poses[name]["translation"]], dtype=torch.float64)
        torch.testing.assert_close(found, alone.pose)
        covariance = torch.tensor(poses[name]["covariance"], dtype=torch.float64)
        torch.testing.assert_close(covariance, alone.covariance * 0.25)
        assert poses[name]["rms_px"] == pytest.approx(float((2 * alone.cost / c[:n].sum()).sqrt()))


def test_noise_can_be_estimated(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, z, _, _ = made(noise=0.5, batch=1)
    (tmp_path / "a.json").write_text(json.dumps({"K": K, "points_2d": x[0].tolist(), "points_3d": z.tolist()}))
    assert main(["solve", "--file", str(tmp_path / "a.json"), "--noise", "0", "--out", str(tmp_path / "b.json")]) == 0
    alone = solve_pnp(x[0], z, torch.tensor(K, dtype=torch.float64))
    variance = 2 * alone.cost / (2 * 8 - 6)  # sum of squared residuals over the degrees of freedom
    covariance = torch.tensor(written(tmp_path / "b.json")[0]["covariance"], dtype=torch.float64)
    torch.testing.assert_close(covariance, alone.covariance * variance)
    assert capsys.readouterr().out.splitlines()[1].startswith("0 ")


@pytest.mark.parametrize("option", ["", "--huber", "--consensus"])
def test_residuals_are_those_of_the_points_used(option: str, tmp_path: pathlib.Path) -> None:
    x, z, _, _ = made(n=16, noise=0.5, batch=1)
    x[:, 3:5] += 40
    c = torch.rand(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    c[3:6] = 0 if not option else c[3:6]
    item = {"points_2d": x[0].tolist(), "points_3d": z.tolist()}
    (tmp_path / "a.json").write_text(json.dumps({"K": K, "weights": c.tolist(), "items": [item]}))
    more = [option, "5.0"] if option else []
    noise = ["--noise", "1" if option == "--huber" else "0"]
    assert main(["solve", "--file", str(tmp_path / "a.json"), *more, *noise, "--out", str(tmp_path / "b.json")]) == 0
    (pose,) = written(tmp_path / "b.json")
    used = c > 0
    if option == "--consensus":
        used[3:5] = False
    assert (pose["points"], pose["points_used"]) == (16, int(used.sum()))
    R, t = (torch.tensor(pose[name], dtype=torch.float64) for name in ("R", "translation"))
    square = (project(z, R, t, torch.tensor(K, dtype=torch.float64)) - x[0]).square().sum(-1)
    total, weight = (c * square)[used].sum(), c[used].sum()
    assert pose["rms_px"] == pytest.approx(float((total / weight).sqrt()))
    if option != "--huber":
        alone = solve_pnp(x[0, used], z[used], torch.tensor(K, dtype=torch.float64), weights=c[used])
        expected = alone.covariance * total / (2 * int(used.sum()) - 6)
        torch.testing.assert_close(torch.tensor(pose["covariance"], dtype=torch.float64), expected)


@pytest.mark.parametrize("option", ["--huber", "--consensus"])
def test_outliers_are_borne(option: str, tmp_path: pathlib.Path) -> None:
    x, z, _, t = made(n=16)
    x[:, 3] += 40
    (tmp_path / "a.json").write_text(json.dumps({"K": K, "points_2d": x[0].tolist(), "points_3d": z.tolist()}))
    errors = {}
    for name, more in (("plain", []), ("robust", [option, "1.0"])):
        assert main(["solve", "--file", str(tmp_path / "a.json"), *more, "--out", str(tmp_path / "b.json")]) == 0
        errors[name] = float((torch.tensor(written(tmp_path / "b.json")[0]["translation"]) - t[0]).norm())
    assert errors["robust"] < 0.2 * errors["plain"]


POINTS = {"points_2d": [[0, 0]] * 4, "points_3d": [[0, 0, 0]] * 4}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "expected a file that ends in .json or .csv"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "holds no item"),
        ("a.json", "[1]", "expected an item"),
        ("a.json", json.dumps(POINTS), "item 0: no camera: give K in the file, or --camera FX FY CX CY"),
        ("a.json", json.dumps(POINTS | {"K": [[1, 0], [0, 1]]}), "K must be a 3x3 camera matrix"),
        ("a.json", json.dumps(POINTS | {"K": [[0, 0, 5], [0, 1, 5], [0, 0, 1]]}), "K must be a 3x3 camera matrix"),
        ("a.json", json.dumps(POINTS | {"K": K, "points_2d": [[1, 2]]}), "points_2d is (1, 2) and points_3d (4, 3)"),
        ("a.json", json.dumps(POINTS | {"K": K, "points_2d": [[1, 2], [3]]}), "points_2d is no table of numbers"),
        ("a.json", json.dumps(POINTS | {"K": K, "points_2d": [["a", 2]]}), "points_2d is no table of numbers"),
        ("a.json", '{"points_2d": [[NaN, 1]], "points_3d": [[0, 0, 0]]}', "a value that is missing or not finite"),
        ("a.json", json.dumps({"items": [{"id": "b", "points_2d": [[1, 2]]}]}), "item b: no points_3d"),
        ("a.json", json.dumps(POINTS | {"K": K, "weights": [1, 1, 1, -1]}), "must be 4 numbers of 0 or more"),
        ("a.json", json.dumps(POINTS | {"K": K, "wieghts": []}), "unknown field wieghts"),
        ("a.json", json.dumps({"items": [POINTS | {"items": []}], "K": K}), "item 0: unknown field items"),
        ("a.json", json.dumps({"items": [POINTS], "K": K, "wieghts": []}), "beside items: unknown field wieghts"),
        ("a.json", json.dumps({"items": [POINTS], "K": K, "weights": [1, 2]}), "weights (2,) must be 4 numbers"),
        ("a.csv", "u,v,x,y,z,wieght\n1,2,3,4,5,6\n", "unknown column wieght"),
        ("a.csv", "u,v,x,y,z\n1,2,3,4,5,6\n", "line 2: more values than the 5 columns"),
        ("a.csv", "u,v,x\n1,2,3\n", "no column y, z"),
        ("a.csv", "u,v,x,y,z\n1,2,3,4,five\n", "line 2: could not convert string to float: 'five'"),
        ("a.csv", "u,v,x,y,z\n1,2,3,4\n", "a value that is missing or not finite"),
        ("a.csv", "u,v,x,y,z\n", "holds no item"),
    ],
)
def test_bad_files_are_one_line_and_status_2(
    name: str, text: str, message: str, tmp_path: pathlib.Path, capsys
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["solve", "--file", str(tmp_path / name)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_missing_and_binary_files_and_wrong_options(tmp_path: pathlib.Path, capsys) -> None:
    assert main(["solve", "--file", "/no/such.json"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    assert main(["solve", "--file", str(tmp_path / "a.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["solve", "--file", "a.csv", "--huber", "1", "--consensus", "1"]) == 2
    assert "give one" in capsys.readouterr().err
    assert main(["solve", "--file", "a.csv", "--noise", "-1"]) == 2
    assert "noise must be 0 or more" in capsys.readouterr().err
    assert main(["solve", "--file", "a.csv", "--noise", "0", "--huber", "1"]) == 2
    assert "give the noise" in capsys.readouterr().err


def test_short_items_are_filled_to_four_points(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("u,v,x,y,z\n1,2,3,4,5\n6,7,8,9,10\n")
    held = read(str(tmp_path / "a.csv"), (300, 310, 160, 120))
    assert held.points_2d.shape == (1, 4, 2)
    assert held.mask.tolist() == [[True, True, False, False]]
    torch.testing.assert_close(held.K[0], torch.tensor(K, dtype=torch.float64))


def test_render_draws_the_drone_where_it_projects(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread
    from robustvision_core.data.offline.drone_meshes import drone_mesh
    from robustvision_core.data.offline.drones import camera

    out = str(tmp_path / "a.png")
    pose = ["--rotation", "170", "30", "0", "--translation", "0.1", "0.05", "0.9"]
    assert main(["render", "--drone", "m2ed", "--size", "tiny", *pose, "--out", out]) == 0
    assert "m2ed on" in capsys.readouterr().out
    picture = torch.from_numpy(imread(out))[..., :3]
    assert picture.shape == (96, 128, 3)
    drawn = ((picture - picture[0, 0]).abs().amax(-1) > 0.02).nonzero().flip(1)  # x, y
    turn = so3_exp(torch.deg2rad(torch.tensor([170.0, 30.0, 0.0])))
    seen = project(drone_mesh("m2ed").vertices, turn, torch.tensor([0.1, 0.05, 0.9]), camera((128, 96)))
    torch.testing.assert_close(drawn.amin(0).float(), seen.amin(0), atol=1.5, rtol=0)
    torch.testing.assert_close(drawn.amax(0).float() + 1, seen.amax(0), atol=1.5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--translation", "0", "0", "-1"], "nothing of the drone is in the image"),
        (["--translation", "9", "0", "1"], "nothing of the drone is in the image"),
        (["--size", "4x4"], "nothing of the drone is in the image, 4x4"),
        (["--size", "wide"], "size is 'wide'"),
        (["--size", "100000x100000"], "expected 1 to 4096 pixels"),
        (["--size", "0x40"], "expected 1 to 4096 pixels"),
        (["--out", "a.jpg"], "--out must end in .png, got 'a.jpg'"),
        (["--rotation", "nan", "0", "0"], "must be finite"),
    ],
)
def test_render_refuses(arguments: list[str], message: str, tmp_path: pathlib.Path, capsys) -> None:
    assert main(["render", "--out", str(tmp_path / "a.png"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written_are_one_line(tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "a.json").write_text(json.dumps(POINTS | {"K": K}))
    for out in (tmp_path, tmp_path / "a.json" / "b.json"):
        assert main(["solve", "--file", str(tmp_path / "a.json"), "--out", str(out)]) == 2
        errors = capsys.readouterr().err
        assert f"{out} cannot be written: " in errors
        assert errors.count("\n") == 1
    assert main(["render", "--size", "tiny", "--out", str(tmp_path / "a.json" / "b.png")]) == 2
    assert "cannot be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
