"""`diffpnp-pose solve` and `render`."""

from __future__ import annotations

import math
import pathlib
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch
from robustvision_core.data import render_mesh
from robustvision_core.data.offline.drone_meshes import drone_mesh
from robustvision_core.data.offline.drones import camera, pixels
from robustvision_core.errors import UserError
from robustvision_core.run.files import atomic_write, write_json
from torch import Tensor

from diffpnp_pose.cli.correspondences import Correspondences, read
from diffpnp_pose.cli.outputs import writing
from diffpnp_pose.geometry import project, so3_exp
from diffpnp_pose.pnp import Huber, PnPResult, SampleConsensus, solve_pnp

_BACKGROUND = (0.82, 0.86, 0.9)
_LARGEST = 4096  # pixels a side, as of the rendered data sets


@dataclass(frozen=True)
class SolveConfig:
    """Find the pose of every item in a file of correspondences, with its covariance.

    JSON: {"K": 3x3, "points_3d": [[x, y, z], ...], "items": [{"id": "a", "points_2d": [[u, v], ...]}, ...]}; points_3d,
    K and weights may stand in each item. CSV: columns u v x y z, and if wanted weight and id.
    """

    file: str
    """A .json or .csv file."""
    camera: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels, for items without K."""
    init: Literal["auto", "weak_perspective", "epnp", "sqpnp"] = "auto"
    """Where the search starts."""
    huber: float = 0.0
    """Residuals over so many pixels pull with constant force; 0 is least squares."""
    consensus: float = 0.0
    """Points further than so many pixels from the best sampled pose are left out; 0 keeps all."""
    noise: float = 1.0
    """Standard deviation of the image points in pixels, for the covariance; 0 estimates it from each item's residuals,
    which needs more than three points and no --huber. With weights, the noise of a point is this over the root of its
    weight."""
    out: str = ""
    """Write the poses to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("huber", "consensus", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.huber and self.consensus:
            raise UserError("--huber and --consensus are two ways to treat outliers: give one")
        if self.huber and not self.noise:
            raise UserError(
                "--noise 0 takes the noise from residuals, in which --huber leaves outliers: give the noise"
            )


@dataclass(frozen=True)
class RenderConfig:
    """Draw a drone at a pose, before a plain background; the camera is UAVA's."""

    drone: Literal["m2ed", "tello"] = "m2ed"
    """m2ed is 0.6 m across, tello a quarter of that."""
    rotation: tuple[float, float, float] = (155.0, 45.0, 20.0)
    """Rotation vector from the drone (x to its left, y up, z forward) to the camera (x right, y down, z into the
    scene), degrees: 180 0 0 looks the drone in the face."""
    translation: tuple[float, float, float] = (0.0, 0.0, 1.2)
    """Of the drone in the camera's frame, metres."""
    size: str = "small"
    """tiny (128x96), small (320x240) or WxH."""
    out: str = "drone.png"
    """The picture, a .png file."""

    def __post_init__(self) -> None:
        if pathlib.Path(self.out).suffix.lower() != ".png":
            raise UserError(f"--out must end in .png, got {self.out!r}")
        if not all(math.isfinite(value) for value in (*self.rotation, *self.translation)):
            raise UserError("rotation and translation must be finite")


def solve(config: SolveConfig) -> None:
    """Print a table of poses, and write them if a file is named."""
    held = read(config.file, config.camera)
    robust = Huber(config.huber) if config.huber else SampleConsensus(config.consensus) if config.consensus else None
    result = solve_pnp(
        held.points_2d,
        held.points_3d,
        held.K,
        weights=held.weights,
        mask=held.mask,
        init=config.init,
        robust=robust,
        backward="none",
    )
    rows = describe(held, result, config.noise)
    sys.stdout.write(f"{table(rows)}\n")
    if config.out:
        with writing(config.out):
            write_json(config.out, {"poses": rows})


def describe(held: Correspondences, result: PnPResult, noise: float) -> list[dict[str, Any]]:
    """Plain values of every item; an item without a valid pose has None for all but its name and its points.

    Residuals are those of the points that the pose was found from: present, of positive weight, inliers. Their weighted
    sum of squares over twice the `points_used` less six estimates the variance for a `noise` of 0.
    """
    points = held.mask.sum(1)
    kept = result.solution.problem.c > 0
    used = kept.sum(1)
    square = (project(held.points_3d, result.R, result.t, held.K) - held.points_2d).square().sum(-1)
    weights = torch.where(kept, held.weights, 0.0)
    total = torch.where(kept, weights * square, 0.0).sum(1)
    freedom = 2 * used - 6
    estimate = torch.where(freedom > 0, total / freedom, torch.nan)
    covariance = result.covariance * (estimate if noise == 0 else torch.full_like(estimate, noise**2))[:, None, None]
    columns = {
        "points_used": used,
        "rotation_vector": result.pose[:, :3],
        "translation": result.t,
        "R": result.R,
        "covariance": covariance,
        "rms_px": (total / weights.sum(1)).sqrt(),
    }
    rows = []
    for k, name in enumerate(held.ids):
        valid = bool(result.valid[k])
        row: dict[str, Any] = {"id": name, "points": int(points[k]), "valid": valid}
        rows.append(row | {key: _plain(value[k]) if valid else None for key, value in columns.items()})
    return rows


def _plain(value: Tensor) -> Any:
    """Numbers for JSON, which has none that are not finite."""
    return value.tolist() if bool(value.isfinite().all()) else None


def table(rows: list[dict[str, Any]]) -> str:
    """One line an item: rotation vector in degrees, translation, their standard deviations, weighted residual."""
    width = max(2, *(len(row["id"]) for row in rows))
    head = (
        f"{'rotation vector, deg':>26}  {'translation':>29}  {'std of rotation, deg':>22}  {'std of translation':>26}"
    )
    lines = [f"{'id':<{width}}  points{head}  rms, px"]
    for row in rows:
        start = f"{row['id']:<{width}}  {row['points']:>6}"
        lines.append(f"{start}{_numbers(row)}" if row["valid"] else f"{start}  no valid pose")
    return "\n".join(lines)


def _numbers(row: dict[str, Any]) -> str:
    turn = " ".join(f"{math.degrees(value):8.2f}" for value in row["rotation_vector"])
    place = " ".join(f"{value:9.4f}" for value in row["translation"])
    if row["covariance"] is None:
        return f"{turn}  {place}  {'unknown':>22}  {'':>26}  {row['rms_px']:7.3f}"
    spread = [math.sqrt(max(row["covariance"][k][k], 0)) for k in range(6)]
    angles = " ".join(f"{math.degrees(value):6.3f}" for value in spread[:3])
    lengths = " ".join(f"{value:8.5f}" for value in spread[3:])
    return f"{turn}  {place}  {angles:>22}  {lengths:>26}  {row['rms_px']:7.3f}"


def render(config: RenderConfig) -> None:
    """Draw the drone."""
    size = pixels(config.size)
    if min(size) < 1 or max(size) > _LARGEST:
        raise UserError(f"--size is {size[0]}x{size[1]}, expected 1 to {_LARGEST} pixels each way")
    mesh = drone_mesh(config.drone)
    R = so3_exp(torch.deg2rad(torch.tensor(config.rotation)))
    seen = render_mesh(
        mesh.vertices, mesh.faces, mesh.colours, R, torch.tensor(config.translation), camera(size), size, supersample=4
    )
    covered = float(seen.mask.sum())
    if covered < 0.5:
        raise UserError(
            f"nothing of the drone is in the image, {size[0]}x{size[1]} at translation {config.translation}: "
            "z must be positive, and the image large enough"
        )
    picture = seen.colour + (1 - seen.mask[..., None]) * torch.tensor(_BACKGROUND)
    with writing(config.out):
        write_png(picture, config.out)
    sys.stdout.write(f"{config.drone} on {covered:.0f} of {size[0]}x{size[1]} pixels, in {config.out}\n")


def write_png(picture: Tensor, path: str) -> None:
    """Write colours (H, W, 3) in [0, 1], one pixel each."""
    from matplotlib.image import imsave

    with atomic_write(path) as temporary:
        imsave(temporary, picture.clamp(0, 1).numpy(), format="png")
