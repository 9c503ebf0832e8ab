"""Pictures of keypoints, poses and runs. Axes are pixels, with the image's corner at (0, 0)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from robustvision_core.data import PoseSet, overlay, render_mesh
from robustvision_core.data.offline.drone_meshes import KEYPOINTS, drone_mesh
from robustvision_core.run import plots
from torch import Tensor

from diffpnp_pose.geometry.projection import project
from diffpnp_pose.metrics import angular_distance, translation_error

_COLUMNS = 4
_WIDTH = 3.0  # inches of one image


def training(records: Sequence[Mapping[str, Any]], first_phase: int, path: str | os.PathLike[str]) -> None:
    """Loss, and errors of held-out poses where there are any, over epochs; a line marks the second phase."""
    epochs = [record["epoch"] for record in records]
    names = {"val_npe": "position error / distance (NPE)", "val_ad": "angle, rad (AD)"}
    names = {key: title for key, title in names.items() if key in records[0]}
    drawn, axes = plots.figure(9.6 if names else 5.2, 4.0, ncols=2 if names else 1, squeeze=False)
    left = axes[0, 0]
    left.plot(epochs, [record["loss"] for record in records], marker=".")
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title="training")
    for key, title in names.items():
        axes[0, 1].plot(epochs, [record[key] for record in records], marker=".", label=title)
    if names:
        axes[0, 1].set(xlabel="epoch", yscale="log", title="validation")
        axes[0, 1].legend(fontsize=8)
    for one in axes[0]:
        one.grid(alpha=0.3)
        if 0 < first_phase < len(records):
            one.axvline(first_phase + 0.5, color="0.5", linestyle=":")
    plots.save(drawn, path)


def heatmaps(poses: PoseSet, maps: Tensor, points: Tensor, path: str | os.PathLike[str]) -> None:
    """Heat-maps over their images, with predicted and true keypoints.

    Args:
        poses: N items.
        maps: (N, P, h, w), each summing to one; each is drawn at its own scale.
        points: (N, P, 2) predicted pixels.
        path: The PNG to write.
    """
    drawn, panels = _panels(poses)
    height, width = poses.images.shape[2:]
    shown = (maps / maps.amax((-2, -1), keepdim=True)).amax(1)
    true = poses.keypoints_2d
    for k, axes in enumerate(panels[: len(poses)]):
        axes.imshow(poses.images[poses.image_index[k]].permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
        opacity = shown[k].clamp(0, 1).mul(0.8).numpy()
        axes.imshow(shown[k].numpy(), extent=(0, width, height, 0), cmap="inferno", vmin=0, vmax=1, alpha=opacity)
        axes.plot(*true[k].T.numpy(), "o", mfc="none", mec="lime", ms=5, label="true")
        axes.plot(*points[k].T.numpy(), "+", color="cyan", ms=6, label="found")
        axes.set(xlim=(0, width), ylim=(height, 0))
    panels[0].legend(fontsize=6, loc="upper right")
    plots.save(drawn, path)


def poses(poses: PoseSet, R: Tensor, t: Tensor, valid: Tensor, path: str | os.PathLike[str]) -> None:
    """The object under the predicted poses (N, 3, 3) and (N, 3) over its images; its keypoints if it has no mesh."""
    drawn, panels = _panels(poses)
    height, width = poses.images.shape[2:]
    thing, images = poses.objects[0], poses.images[poses.image_index]
    mesh = thing.mesh or (drone_mesh(thing.name) if thing.name in KEYPOINTS else None)
    if mesh is not None:
        rows = valid.nonzero()[:, 0]
        render = render_mesh(mesh.vertices, mesh.faces, mesh.colours, R[rows], t[rows], poses.K[rows], (width, height))
        images = images.index_copy(0, rows, overlay(images[rows], render, 0.75))
    degrees = torch.rad2deg(angular_distance(R, poses.R))
    shift = 100 * translation_error(t, poses.t)
    seen = project(poses.keypoints_3d, R, t, poses.K)
    for k, axes in enumerate(panels[: len(poses)]):
        axes.imshow(images[k].permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
        title = f"{float(degrees[k]):.1f}°, {float(shift[k]):.1f} % of distance" if valid[k] else "no pose"
        axes.set_title(title, fontsize=8)
        if mesh is None and valid[k]:
            axes.plot(*seen[k].T.numpy(), "+", color="cyan", ms=6)
        axes.set(xlim=(0, width), ylim=(height, 0))
    plots.save(drawn, path)


def distance(bins: Sequence[tuple[float, Mapping[str, float]]], path: str | os.PathLike[str]) -> None:
    """Accuracy of equally many items each, from near to far."""
    where = [place for place, _ in bins]
    titles = {"ADD5": "ADD5", "ACC5": "ACC5 (5 degrees, 5 cm)", "Proj5": "Proj5 (5 pixels)"}
    series = {title: (where, [values[name] for _, values in bins]) for name, title in titles.items()}
    plots.curves(series, path, xlabel="distance, m", ylabel="right, %", title="accuracy against distance")


def _panels(poses: PoseSet) -> tuple[Any, list[Any]]:
    """A figure with a panel without ticks for each item."""
    rows = math.ceil(len(poses) / _COLUMNS)
    columns = min(len(poses), _COLUMNS)
    ratio = poses.images.shape[2] / poses.images.shape[3]
    drawn, axes = plots.figure(
        columns * _WIDTH, rows * (_WIDTH * ratio + 0.3), nrows=rows, ncols=columns, squeeze=False
    )
    panels = list(axes.flat)
    for panel in panels:
        panel.axis("off")
    return drawn, panels
