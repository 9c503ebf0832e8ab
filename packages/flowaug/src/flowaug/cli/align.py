"""`flowaug align`: test images moved to the modes of their distributions, and how much closer they get."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import torch
from robustvision_core.data import ImageSet, resize, rotate_each, to_rgb
from robustvision_core.data import load as load_set
from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from flowaug.augmenter import Alignment, Augmenter
from flowaug.cli import plots
from flowaug.cli.data import leading
from flowaug.cli.measures import ordered_batches
from flowaug.cli.models import PROGRAM, can_align, read_run
from flowaug.cli.options import AlignConfig
from flowaug.cli.recipes import TrainConfig
from flowaug.flows.circle import circular_deviation
from flowaug.warp import rotation_angle


def align(config: AlignConfig) -> None:
    """Align, print the spread before and after, and draw the images."""
    stored = config.trained(TrainConfig, PROGRAM)
    folder = pathlib.Path(config.out or config.run)
    with Runtime.session(config.device, stored.precision, stored.seed) as runtime:
        trained = read_run(config, runtime)
        if not can_align(trained.config):
            raise UserError("alignment needs a learned augmenter over affine transforms")
        test = other_set(config, trained.sets.test) if config.data else trained.sets.test
        some = leading(test, config.images)
        if int(some.class_counts().max()) < 2:
            raise UserError(f"{len(some)} images have no two of one class, whose spread could be compared: take more")
        if config.degrees:
            some = rotate_each(some, config.degrees, derive_seed(stored.seed, "align"))
        before, after = align_set(config, trained.model.augmenter, some, runtime)
    found = spreads(some, before, after, 1 if config.data else stored.settled().images.modes or 1)
    write_json(folder / "alignment.json", found)
    plots.prototypes(some, before, after.images, folder / "plots" / "alignment.png")
    sys.stdout.write(report(found) + f"picture: {folder / 'plots' / 'alignment.png'}\n")


def other_set(config: AlignConfig, like: ImageSet) -> ImageSet:
    """The test images of another set, of the shape of `like`.

    Raises:
        UserError: It has colours and the run has none, or it cannot be had.
    """
    loaded = load_set(config.data, "test", config.data_root or None, config.download)
    channels, side, _ = like.shape
    if loaded.shape[0] > channels:
        raise UserError(f"{config.data} has {loaded.shape[0]} channels, the run's images have {channels}")
    return resize(to_rgb(loaded) if channels == 3 else loaded, side)


@torch.no_grad()
def align_set(config: AlignConfig, augmenter: Augmenter, data: ImageSet, runtime: Runtime) -> tuple[Tensor, Alignment]:
    """All images (N, C, H, W) in [0, 1], and their alignment, on the CPU."""
    generator = torch.Generator(runtime.device).manual_seed(derive_seed(runtime.seed, "align samples"))
    options: dict[str, Any] = {"steps": config.steps, "gamma": config.gamma, "n": config.samples}
    parts = [
        (batch.images, augmenter.align(batch.images, **options, compose=config.compose, generator=generator))
        for batch in ordered_batches(data, runtime).epoch(0)
    ]
    images = torch.cat([part for part, _ in parts]).cpu()
    done = [found for _, found in parts]
    means = torch.cat([found.means for found in done], 1).cpu()
    return images, Alignment(
        torch.cat([found.images for found in done]).cpu(), torch.cat([found.matrices for found in done]).cpu(), means
    )


def spreads(data: ImageSet, before: Tensor, after: Alignment, modes: int = 1) -> dict[str, Any]:
    """How far the images of a class lie apart before and after: of pixels, and of angles in degrees where known.

    Angles count modulo 2 pi / modes, those of several modes being equally right.
    """
    classes = [data.labels.cpu() == c for c in range(data.num_classes)]
    found: dict[str, Any] = {
        "images": len(data),
        "pixels_before": _pixel_deviation(before, classes),
        "pixels_after": _pixel_deviation(after.images, classes),
    }
    if "angle" in data.extras:
        angle = data.extras["angle"].cpu()
        aligned = angle - rotation_angle(after.matrices)  # angles run clockwise, rotations counter-clockwise
        for name, values in (("degrees_before", angle), ("degrees_after", aligned)):
            parts = [circular_deviation(values[chosen], modes) for chosen in classes if chosen.sum() > 1]
            found[name] = sum(parts) / len(parts)
    return found


def _pixel_deviation(images: Tensor, classes: list[Tensor]) -> float:
    """Mean over classes and pixels of the deviation over a class's images."""
    parts = [images[chosen].std(0).mean() for chosen in classes if chosen.sum() > 1]
    return float(torch.stack(parts).mean())


def report(found: dict[str, Any]) -> str:
    """The spreads as text."""
    lines = [f"{'within a class':<28}{'before':>10}{'after':>10}"]
    for key, title, style in (
        ("degrees", "angle, degrees (circular)", "{:10.1f}"),
        ("pixels", "pixels (standard deviation)", "{:10.4f}"),
    ):
        if f"{key}_before" in found:
            lines.append(f"{title:<28}" + style.format(found[f"{key}_before"]) + style.format(found[f"{key}_after"]))
    return "\n".join(lines) + "\n"
