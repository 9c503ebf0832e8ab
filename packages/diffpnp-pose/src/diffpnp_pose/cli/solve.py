"""`diffpnp-pose solve`: poses from a file of correspondences."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import torch
from robustvision_core.errors import DataError
from robustvision_core.run.files import write_json
from torch import Tensor

from diffpnp_pose.cli.camera import read_camera
from diffpnp_pose.cli.correspondences import MIN_POINTS, Correspondences, read
from diffpnp_pose.cli.options import SolveConfig
from diffpnp_pose.cli.outputs import writing
from diffpnp_pose.distortion import undistort_points
from diffpnp_pose.geometry.projection import project
from diffpnp_pose.pnp import Huber, PnPResult, SampleConsensus, solve_pnp


def solve(config: SolveConfig) -> None:
    """Print a table of poses, and write them if a file is named."""
    held = _read(config)
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


def _read(config: SolveConfig) -> Correspondences:
    """The correspondences, as a camera without distortion would see them."""
    if not config.camera_file:
        return read(config.file, config.camera)
    camera = read_camera(config.camera_file)
    (fx, skew, cx), (_, fy, cy), _ = camera.K.tolist()
    if skew:
        raise DataError(f"{config.camera_file}: a camera with skew cannot be given to solve")
    held = read(config.file, (fx, fy, cx, cy))
    return replace(held, points_2d=undistort_points(held.points_2d, camera.K, camera.distortion))


def describe(held: Correspondences, result: PnPResult, noise: float) -> list[dict[str, Any]]:
    """Plain values of every item; an item without a valid pose has None for all but its name and its points.

    Residuals are those of the points that the pose was found from: present, of positive weight, inliers. Their weighted
    sum of squares over twice the `points_used` less six estimates the variance for a `noise` of 0.
    """
    points = held.mask.sum(1)
    kept, used = result.inliers, result.inlier_count
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
        lines.append(f"{start}{_numbers(row)}" if row["valid"] else f"{start}  {_refused(row)}")
    return "\n".join(lines)


def _refused(row: dict[str, Any]) -> str:
    return "no valid pose" if row["points"] >= MIN_POINTS else f"no valid pose: {MIN_POINTS} points or more are needed"


def _numbers(row: dict[str, Any]) -> str:
    rotation = " ".join(f"{math.degrees(value):8.2f}" for value in row["rotation_vector"])
    place = " ".join(f"{value:9.4f}" for value in row["translation"])
    if row["covariance"] is None:
        return f"{rotation}  {place}  {'unknown':>22}  {'':>26}  {row['rms_px']:7.3f}"
    spread = [math.sqrt(max(row["covariance"][k][k], 0)) for k in range(6)]
    angles = " ".join(f"{math.degrees(value):6.3f}" for value in spread[:3])
    lengths = " ".join(f"{value:8.5f}" for value in spread[3:])
    return f"{rotation}  {place}  {angles:>22}  {lengths:>26}  {row['rms_px']:7.3f}"
