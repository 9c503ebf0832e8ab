"""`flowaug demo`: what learning each image's rotations does to rotations never seen, in about half a minute."""

from __future__ import annotations

import math
import pathlib
import sys

import torch
from robustvision_core.data import ImageSet
from robustvision_core.data import load as load_set
from robustvision_core.run import plots as core_plots
from robustvision_core.run.folder import new_folder
from robustvision_core.run.runtime import Runtime
from torch import Tensor
from tqdm import tqdm

from flowaug.cli import plots
from flowaug.cli.data import load
from flowaug.cli.measures import ordered_batches, predictor
from flowaug.cli.models import make_model
from flowaug.cli.options import DemoConfig
from flowaug.cli.recipes import TrainConfig
from flowaug.cli.train import Step, fit_on
from flowaug.flows.circle import folded

AUGMENTERS = {"none": "no augmentation", "flow": "learned, per image"}
BANDS = ((0, 45), (45, 60), (60, 75), (75, 90))
"""Rotations in degrees; training has the first."""


def demo(config: DemoConfig) -> None:
    """Print the table, and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = pathlib.Path(config.out) if config.out else new_folder("runs", "flowaug-demo")
    results: dict[str, list[float]] = {}
    with tqdm(total=len(AUGMENTERS), desc="demo", disable=not sys.stderr.isatty()) as bar:
        for augmenter in AUGMENTERS:
            results[augmenter] = run(config, augmenter, folder / "plots")
            bar.update()
    heads = "".join(f"{f'{low}-{high}':>10}" for low, high in BANDS)
    lines = ["test accuracy, %, by rotation in degrees; training rotates by 45 at most", f"{'':<20}{heads}"]
    lines += [
        f"{title:<20}" + "".join(f"{100 * value:>10.1f}" for value in results[name])
        for name, title in AUGMENTERS.items()
    ]
    draw(results, folder / "plots" / "demo.png")
    sys.stdout.write("\n".join([*lines, f"pictures: {folder / 'plots'}"]) + "\n")


def run(config: DemoConfig, augmenter: str, pictures: pathlib.Path) -> list[float]:
    """Accuracy in every band of rotations, of one training."""
    recipe = TrainConfig.PRESETS["quick"].settled()
    quick = recipe.changed(
        augmenter=augmenter,
        train_size=config.train_size,
        epochs=config.epochs,
        burn_in=max(min(recipe.objective.burn_in, config.epochs - 1), 0),
        seed=config.seed,
        progress=False,
    )
    with Runtime.session(config.device, seed=config.seed) as runtime:
        sets = load(quick)
        step = Step(make_model(quick, sets.train), quick)
        fit_on(quick, sets, runtime, None, step)
        step.model.eval()
        test = load_set("sprites", "test", degrees=90, size=quick.images.size)
        plots.draw_learned(quick, step.model, sets.test, runtime, lambda name: pictures / f"{name}.png")
        predict = predictor(quick, step.model, runtime)
        right = torch.cat([predict(b.images).argmax(-1) == b.labels for b in ordered_batches(test, runtime).epoch(0)])
    return by_band(test, right.cpu())


def by_band(test: ImageSet, right: Tensor) -> list[float]:
    """Accuracy (N,) by how far an image is rotated from its class's own upright."""
    angle = folded(test.extras["angle"] - math.pi * (test.labels % 2)).abs().rad2deg()
    return [float(right[(angle >= low) & (angle < high)].float().mean()) for low, high in BANDS]


def draw(results: dict[str, list[float]], path: pathlib.Path) -> None:
    """Bars of accuracy by band."""
    drawn, axes = core_plots.figure()
    for place, (name, title) in enumerate(AUGMENTERS.items()):
        heights = [100 * value for value in results[name]]
        bars = axes.bar([x + 0.4 * place for x in range(len(BANDS))], heights, 0.38, label=title)
        axes.bar_label(bars, fmt="%.0f")
    axes.set_xticks([x + 0.2 for x in range(len(BANDS))], [f"{low}-{high}" for low, high in BANDS])
    axes.set(xlabel="rotation of the test image, degrees", ylabel="accuracy, %", ylim=(0, 108))
    axes.set_title("sprites up or upside down; training rotates by 45 degrees at most", fontsize=9)
    axes.legend(fontsize=8)
    core_plots.save(drawn, path)
