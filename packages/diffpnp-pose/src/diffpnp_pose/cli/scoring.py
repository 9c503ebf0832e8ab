"""Metrics of predicted poses, and pictures of them."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.data import PoseSet
from robustvision_core.run.runtime import Runtime
from torch import nn

from diffpnp_pose.cli import plots
from diffpnp_pose.cli.inference import Predictions, heatmaps_of, ordered_batches
from diffpnp_pose.metrics import PoseMetrics

EIGHT = ("NPE", "AD", "ACC2", "ACC5", "ADD2", "ADD5", "Proj2", "Proj5")
"""The paper's metrics."""

_UNITS = {"NPE": "", "AD": " rad"}  # the others are percentages
_SHOWN = 8  # items in pictures
_VERTICES = 1 << 22  # moved at once by the metrics
_BINS = 6  # of distance
_HARDLY = 5.0  # % of right poses under which it is said


def score(poses: PoseSet, found: Predictions) -> dict[str, float]:
    """The metrics of `PoseMetrics` over the items, in their order, and the percentage of valid poses."""
    thing = poses.objects[0]
    vertices = (thing.keypoints if thing.mesh is None else thing.mesh.vertices).cpu()
    metrics = PoseMetrics(vertices, diagonal=thing.diameter)
    truth = poses.R.cpu(), poses.t.cpu(), getattr(poses, "source_K", poses.K).cpu()
    for rows in torch.arange(len(poses)).split(max(1, _VERTICES // len(vertices))):
        metrics.update(found.R[rows], found.t[rows], *(value[rows] for value in truth))
    return metrics.compute() | {"valid": 100 * float(found.valid.float().mean())}


def by_distance(poses: PoseSet, found: Predictions, bins: int = _BINS) -> list[tuple[float, dict[str, float]]]:
    """Mean distance in metres and metrics of equally many items each, from near to far."""
    distance = poses.t.cpu().norm(dim=1)
    parts = distance.argsort().chunk(min(bins, len(poses)))
    return [
        (float(distance[rows].mean()), score(poses.take(rows), Predictions(*(value[rows] for value in found))))
        for rows in parts
    ]


def summarise(values: dict[str, float]) -> str:
    """A line for each of the eight metrics, and one for the items."""
    lines = [f"{name:<6}{values[name]:>9.4f}{unit}" for name, unit in _UNITS.items()]
    lines += [f"{name:<6}{values[name]:>9.2f} %" for name in EIGHT if name not in _UNITS]
    lines.append(f"{values['samples']:.0f} images, {values['valid']:.1f} % with a valid pose")
    if values["ADD10"] < _HARDLY:
        lines.append(
            f"hardly any pose is right: {values['ADD10']:.0f} % within a tenth of the diameter (valid says that the "
            "keypoints have one); train longer, or on larger images or crops"
        )
    return "\n".join(lines)


@torch.no_grad()
def draw(
    poses: PoseSet, found: Predictions, network: nn.Module, runtime: Runtime, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Write heat-maps and meshes over some images, and accuracy against distance; the paths of the pictures."""
    rows = torch.linspace(0, len(poses) - 1, min(_SHOWN, len(poses))).round().long()
    some, seen = poses.take(rows), Predictions(*(value[rows] for value in found))
    network.eval()
    batch = next(ordered_batches(some, runtime).epoch(0))
    maps = heatmaps_of(network, batch.images, runtime).cpu()
    paths = [folder / f"{name}.png" for name in ("heatmaps", "poses", "distance")]
    plots.heatmaps(some.to("cpu"), maps, seen.points, paths[0])
    plots.poses(some.to("cpu"), seen.R, seen.t, seen.valid, paths[1])
    plots.distance(by_distance(poses, found), paths[2])
    return paths
