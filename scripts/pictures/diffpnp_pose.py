"""A drone at the pose that its noisy keypoints give, with the spread of that pose, and the time that a batch takes."""

from __future__ import annotations

import pathlib

import torch
from diffpnp_pose import project, so3_exp, solve_pnp
from robustvision_core.data import load_poses
from torch import Tensor

from benchmarks.drawing import Drawing, mixed
from scripts.pictures import sheet as page

SIZE = (256, 192)
NOISE = 1.5
ZOOM = 2.1
CORNER = (118.0, 98.0)


def write(folder: pathlib.Path = page.FOLDER) -> None:
    """Solve, draw the mesh, and add the measured times."""
    torch.set_num_threads(1)
    poses = load_poses("drones", "test", count=1, size=SIZE)
    drone, K = poses.objects[0], poses.K[0].double()
    R, t = so3_exp(torch.tensor([2.3, 0.5, -0.35], dtype=torch.float64)), torch.tensor([0.0, 0.0, 1.1]).double()
    keypoints = drone.keypoints.double()
    noise = torch.randn(keypoints.shape[0], 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = project(keypoints, R, t, K) + NOISE * noise
    found = solve_pnp(seen[None], keypoints, K)
    rows = page.results("diffpnp_pose", "published_layer")["rows"]
    times = next(row for row in rows if (row["n"], row["B"]) == (9, 24))

    def draw(sheet: Drawing) -> None:
        sheet.text((0, 22), "keypoints with noise (+), the pose they give", 13, colour=sheet.palette.faint)
        mesh(sheet, drone.mesh, found.R[0], found.t[0], K)
        crosses(sheet, seen, project(keypoints, found.R[0], found.t[0], K))
        look, most = sheet.palette, times["published"]
        bars = [("published layer", most, f"{most:.0f} ms", look.series[1])]
        bars += [("solve_pnp", times["solve_pnp"], f"{times['solve_pnp']:.1f} ms", look.main)]
        page.bars(sheet, "24 poses, forward and backward", bars, 1.1 * most)

    page.write("diffpnp_pose", "A drone drawn at the pose found from its keypoints", draw, folder)


def placed(points: Tensor) -> list[tuple[float, float]]:
    """Pixels (..., 2) of the image as places on the sheet."""
    moved = (points - torch.tensor([SIZE[0] / 2, SIZE[1] / 2])) * ZOOM + torch.tensor([2 * CORNER[0], CORNER[1] + 22])
    return [(float(x), float(y)) for x, y in moved]


def mesh(sheet: Drawing, mesh, R: Tensor, t: Tensor, K: Tensor) -> None:
    """Faces from far to near, brighter where they look at the camera."""
    corners = mesh.vertices.double() @ R.mT + t
    places = project(mesh.vertices.double(), R, t, K)
    faces = corners[mesh.faces]
    normals = torch.linalg.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    shade = (normals[:, 2] / normals.norm(dim=-1).clamp_min(1e-12)).abs()
    order = faces[..., 2].mean(1).argsort(descending=True).tolist()
    for face in order:
        colour = mixed(sheet.palette.faint, sheet.palette.ground, 0.25 + 0.55 * float(shade[face]))
        sheet.area(placed(places[mesh.faces[face]]), colour, colour)


def crosses(sheet: Drawing, seen: Tensor, fitted: Tensor) -> None:
    """Given points as crosses, those of the pose as discs."""
    for (x, y), (u, v) in zip(placed(seen), placed(fitted), strict=True):
        sheet.dot((u, v), 4.5, sheet.palette.main, sheet.palette.ground)
        sheet.line([(x - 6, y), (x + 6, y)], sheet.palette.wrong, 2.2)
        sheet.line([(x, y - 6), (x, y + 6)], sheet.palette.wrong, 2.2)


if __name__ == "__main__":
    page.main(write)
