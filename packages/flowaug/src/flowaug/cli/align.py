"""`flowaug align`: images moved to the modes of their distributions, and how much closer they get."""

from __future__ import annotations

import pathlib
import sys
from typing import Any, cast

import torch
from robustvision_core.data import ImageSet, resize, rotate_each, to_rgb
from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from flowaug.augmenter import Alignment, Augmenter
from flowaug.cli import plots
from flowaug.cli.data import leading, load_images
from flowaug.cli.measures import BATCH, ordered_batches
from flowaug.cli.models import PROGRAM, can_align, read_run
from flowaug.cli.options import AlignConfig
from flowaug.cli.own_images import OwnImages, read_own, write_image, write_table
from flowaug.cli.recipes import TrainConfig
from flowaug.flows.circle import circular_deviation, wrap_periodic
from flowaug.spaces import AffineSpace
from flowaug.targets import pixel_motions
from flowaug.warp import rotation_angle


def align(config: AlignConfig) -> None:
    """Align, write each image with its pose, print the spread before and after, and draw the images."""
    stored = config.trained(TrainConfig, PROGRAM)
    if not can_align(stored):
        raise UserError("alignment needs a learned augmenter over affine transforms")
    folder = pathlib.Path(config.out or config.run)
    with Runtime.session(config.device, stored.precision, stored.seed) as runtime:
        own = read_own(config, runtime) if config.own_images else read_test(config, runtime)
        before, after = align_set(config, own.model.augmenter, own.images, runtime)
        write_poses(own, before, after, folder, runtime)
    known = not config.data and not config.own_images
    found = spreads(own.images, before, after, (own.config.images.modes or 1) if known else 1)
    write_json(folder / "alignment.json", found)
    plots.prototypes(own.images, before, after.images, folder / "plots" / "alignment.png")
    sys.stdout.write(
        report(found) + f"{len(before)} images: {folder / 'aligned'}, {folder / 'poses.csv'}; "
        f"picture: {folder / 'plots' / 'alignment.png'}\n"
    )


def read_test(config: AlignConfig, runtime: Runtime) -> OwnImages:
    """The model of a run, and some test images of its data set or another."""
    trained = read_run(config, runtime)
    test = other_set(config, trained.sets.test) if config.data else trained.sets.test
    some = leading(test, int(config.images))
    if config.degrees:
        some = rotate_each(some, config.degrees, derive_seed(trained.config.seed, "align"))
    names = [pathlib.Path(f"{place:06d}.png") for place in range(len(some))]
    settled = trained.config.settled()
    return OwnImages(settled, trained.model, some, [f"test image {number}" for number in some.ids.tolist()], names)


@torch.no_grad()
def write_poses(own: OwnImages, before: Tensor, after: Alignment, folder: pathlib.Path, runtime: Runtime) -> None:
    """The aligned images, and poses.csv: a row an image with its transform, as coordinates and as a matrix of pixels.

    The coordinates are those of the space whose transform the alignment is, or the nearest, and `log_density` what the
    image's own distribution says of them. The matrix takes pixels of the image, as it is prepared, to the aligned one.
    """
    space = cast("AffineSpace", own.model.augmenter.space)
    size = (before.shape[-2], before.shape[-1])
    w = wrap_periodic(space.parameters(after.matrices, size), space.periodic)
    motions = pixel_motions(after.matrices.double(), size, space.align_corners).flatten(1)
    parts = zip(before.split(BATCH), w.float().split(BATCH), strict=True)
    augmenter, device = own.model.augmenter, runtime.device
    densities = torch.cat([augmenter.log_prob(x.to(device), at.to(device)[:, None])[:, 0].cpu() for x, at in parts])
    entries = [f"m{row}{column}" for row in range(3) for column in range(3)]
    rows = (
        [file, *at, *matrix, density]
        for file, at, matrix, density in zip(own.files, w.tolist(), motions.tolist(), densities.tolist(), strict=True)
    )
    write_table(folder / "poses.csv", ["file", *space.names, *entries, "log_density"], rows)
    for name, image in zip(own.names, after.images, strict=True):
        write_image(folder / "aligned" / name, image)


def other_set(config: AlignConfig, like: ImageSet) -> ImageSet:
    """The test images of another set, of the shape of `like`.

    Raises:
        UserError: It has colours and the run has none, or it cannot be had.
    """
    loaded = load_images(config.data, "test", config.data_root, config.download)
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
    found: dict[str, Any] = {"images": len(data)}
    if not any(int(chosen.sum()) > 1 for chosen in classes):
        return found  # no two of one class, whose spread could be compared
    found["pixels_before"] = _pixel_deviation(before, classes)
    found["pixels_after"] = _pixel_deviation(after.images, classes)
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
    if "pixels_before" not in found:
        return ""
    lines = [f"{'within a class':<28}{'before':>10}{'after':>10}"]
    for key, title, style in (
        ("degrees", "angle, degrees (circular)", "{:10.1f}"),
        ("pixels", "pixels (standard deviation)", "{:10.4f}"),
    ):
        if f"{key}_before" in found:
            lines.append(f"{title:<28}" + style.format(found[f"{key}_before"]) + style.format(found[f"{key}_after"]))
    return "\n".join(lines) + "\n"
