"""Pictures of a run: training, learned rotations, aligned images, accuracy under rotation."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from robustvision_core.data import ImageSet, first
from robustvision_core.run import plots
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from flowaug.classifier import AugmentedClassifier
from flowaug.cli.recipes import TrainConfig


def training(records: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Loss, cross-entropy, entropy and alpha over epochs."""
    titles = {
        "loss": "loss",
        "ce": "cross-entropy",
        "entropy": "entropy, nats",
        "alpha": "alpha",
        "val_accuracy": "val",
    }
    series = {}
    for key, title in titles.items():
        held = [record for record in records if key in record]
        if held:
            series[title] = ([record["epoch"] for record in held], [record[key] for record in held])
    plots.curves(series, path, xlabel="epoch", ylabel="value", title="training")


@torch.no_grad()
def draw_learned(
    config: TrainConfig,
    model: AugmentedClassifier,
    data: ImageSet,
    runtime: Runtime,
    path_of: Callable[[str], pathlib.Path],
) -> None:
    """Some images with the views that the augmenter gives them, and its rotations where there are any."""
    model.eval()
    some = first(data, min(6, len(data)))
    images = (some.images.float() / 255).to(runtime.device)
    generator = torch.Generator(runtime.device).manual_seed(0)
    if not config.learns:
        return
    w, _ = model.augmenter.sample(images, 1000, generator)
    views(images, model.augmenter.warp(images, w[:, :7]), path_of("views"))
    names = model.augmenter.space.names
    if "rot" in names:
        rotations(images, math.pi * w[..., names.index("rot")], path_of("rotations"))


def views(images: Tensor, augmented: Tensor, path: str | os.PathLike[str]) -> None:
    """Images (B, C, H, W), each in a row with its views (B, S, C, H, W)."""
    rows, columns = augmented.shape[0], augmented.shape[1] + 1
    drawn, panels = plots.figure(columns * 0.9, rows * 0.9 + 0.3, nrows=rows, ncols=columns, squeeze=False)
    for line, image, others in zip(panels, images, augmented, strict=True):
        for axes, shown in zip(line, [image, *others], strict=True):
            plots.show(axes, shown)
    drawn.suptitle("image, and views by its own distribution", fontsize=9)
    plots.save(drawn, path)


def rotations(images: Tensor, angles: Tensor, path: str | os.PathLike[str], bins: int = 48) -> None:
    """Images (B, C, H, W) above polar histograms of their sampled rotations (B, S), counter-clockwise radians."""
    from matplotlib.projections.polar import PolarAxes

    count = len(images)
    drawn, _ = plots.figure(1.7 * count, 3.2)
    drawn.clear()
    edges = torch.linspace(-math.pi, math.pi, bins + 1)
    for place, (image, sampled) in enumerate(zip(images, angles, strict=True)):
        plots.show(drawn.add_subplot(2, count, place + 1), image)
        axes = drawn.add_subplot(2, count, count + place + 1, projection="polar")
        assert isinstance(axes, PolarAxes)
        heights = torch.histogram(sampled.detach().cpu().float(), edges).hist / sampled.numel()
        axes.bar(edges[:-1].tolist(), heights.tolist(), width=2 * math.pi / bins, align="edge")
        axes.set_theta_zero_location("N")
        axes.set_yticklabels([])
        axes.tick_params(labelsize=6)
    drawn.suptitle("learned rotations of each image, counter-clockwise", fontsize=9)
    plots.save(drawn, path)


def prototypes(data: ImageSet, before: Tensor, after: Tensor, path: str | os.PathLike[str], each: int = 5) -> None:
    """Per class: some images and the mean of all before alignment, then the same after; (N, C, H, W) in [0, 1]."""
    present = [c for c in range(data.num_classes) if int((data.labels == c).sum())][:10]
    columns = 2 * (each + 1)
    drawn, panels = plots.figure(
        columns * 0.8, len(present) * 0.85 + 0.4, nrows=len(present), ncols=columns, squeeze=False
    )
    for line, c in zip(panels, present, strict=True):
        chosen = (data.labels == c).nonzero()[:, 0].cpu()
        for half, images in ((line[: each + 1], before[chosen]), (line[each + 1 :], after[chosen])):
            for axes in half:
                axes.set_axis_off()
            for axes, image in zip(half[:each], images, strict=False):
                plots.show(axes, image)
            plots.show(half[each], images.mean(0))
    drawn.suptitle("before | mean | after | mean", fontsize=9)
    plots.save(drawn, path)


def evaluation(found: dict[str, Any], folder: pathlib.Path) -> None:
    """The curve of accuracy, widths by class, and expected divergence by class size, as far as they were measured."""
    if "curve" in found:
        titles = {"accuracy": "with augmented views", "aligned": "aligned first"}
        curve = found["curve"]
        series = {title: (curve["degrees"], curve[key]) for key, title in titles.items() if key in curve}
        plots.curves(series, folder / "rotation.png", xlabel="rotation of the image, degrees", ylabel="accuracy")
    if "width_by_class" in found:
        bars(
            found["classes"],
            found["width_by_class"],
            folder / "widths.png",
            "half-width of the learned rotation, degrees",
        )
    held = [
        (size, value)
        for size, value in zip(found["samples"], found["expected_kl_by_class"], strict=True)
        if value is not None
    ]
    held.sort()
    series = {"classes": ([size for size, _ in held], [value for _, value in held])}
    label = f"expected KL under rotations up to {found['degrees']:g} degrees, nats"
    plots.curves(series, folder / "expected_kl.png", xlabel="training samples of the class", ylabel=label)


def bars(names: Sequence[str], heights: Sequence[float | None], path: str | os.PathLike[str], label: str) -> None:
    """One bar per name."""
    drawn, axes = plots.figure()
    axes.bar(list(names), [height or 0.0 for height in heights])
    axes.set(ylabel=label)
    axes.tick_params(axis="x", rotation=45)
    plots.save(drawn, path)
