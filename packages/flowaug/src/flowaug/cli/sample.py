"""`flowaug sample`: views of images, drawn from each one's own distribution, with their densities."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from flowaug.cli import plots
from flowaug.cli.measures import ordered_batches
from flowaug.cli.models import PROGRAM
from flowaug.cli.options import SampleConfig
from flowaug.cli.own_images import OwnImages, read_own, write_image, write_table
from flowaug.cli.recipes import TrainConfig

SHOWN = 8  # images in the picture, with as many views of each at most


def sample(config: SampleConfig) -> None:
    """Write the views of every image, and samples.csv: a row a view with its transform and log-density in nats."""
    stored = config.trained(TrainConfig, PROGRAM)
    folder = pathlib.Path(config.out)
    shown: list[tuple[Tensor, Tensor]] = []
    with Runtime.session(config.device, stored.precision, config.seed) as runtime:
        own = read_own(config, runtime)
        rows = list(drawn(config, own, runtime, shown))
    write_table(folder / "samples.csv", ["file", "view", *own.model.augmenter.space.names, "log_density"], rows)
    images, views = (torch.stack(part) for part in zip(*shown, strict=True))
    plots.views(images, views, folder / "samples.png")
    sys.stdout.write(f"{len(rows)} views of {len(own.files)} images: {folder}, {folder / 'samples.csv'}\n")


@torch.no_grad()
def drawn(
    config: SampleConfig, own: OwnImages, runtime: Runtime, shown: list[tuple[Tensor, Tensor]]
) -> Iterator[list[Any]]:
    """Rows of the table, batch by batch; writes the views, and puts the first images with theirs into `shown`."""
    generator = torch.Generator(runtime.device).manual_seed(config.seed)
    place = 0
    for batch in ordered_batches(own.images, runtime).epoch(0):
        found = own.model.augmenter(batch.images, config.views, generator)
        for image, views, w, log_prob in zip(batch.images, found.images, found.w, found.log_prob, strict=True):
            if len(shown) < SHOWN:
                shown.append((image.cpu(), views[:SHOWN].cpu()))
            name = own.names[place].with_suffix("")
            for view, pixels in enumerate(views):
                path = name.with_name(f"{name.name}-{view}.png")
                write_image(pathlib.Path(config.out) / path, pixels)
                yield [own.files[place], os.fspath(path), *w[view].tolist(), float(log_prob[view])]
            place += 1
