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
SHOWN = 12  # new images in the last picture
BANDS = ((0, 45), (45, 60), (60, 75), (75, 90))
"""Rotations in degrees; training has the first."""


def demo(config: DemoConfig) -> None:
    """Print the table, and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = pathlib.Path(config.out) if config.out else new_folder("runs", "flowaug-demo")
    results: dict[str, list[float]] = {}
    new = load_set("sprites", "test", degrees=90, size=TrainConfig.PRESETS["quick"].settled().images.size)
    said = ""
    with tqdm(total=len(AUGMENTERS), desc="demo", disable=not sys.stderr.isatty()) as bar:
        for augmenter in AUGMENTERS:
            p = run(config, augmenter, new, folder / "plots")
            results[augmenter] = by_band(new, p.argmax(1) == new.labels)
            said = predicted(new, p, folder / "plots" / "predictions.png")  # the last one is learned
            bar.update()
    heads = "".join(f"{f'{low}-{high}':>10}" for low, high in BANDS)
    lines = ["test accuracy, %, by rotation in degrees; training rotates by 45 at most", f"{'':<20}{heads}"]
    lines += [
        f"{title:<20}" + "".join(f"{100 * value:>10.1f}" for value in results[name])
        for name, title in AUGMENTERS.items()
    ]
    draw(results, folder / "plots" / "demo.png")
    sys.stdout.write("\n".join([*lines, f"pictures: {folder / 'plots'}", said]) + "\n")


def run(config: DemoConfig, augmenter: str, new: ImageSet, pictures: pathlib.Path) -> Tensor:
    """Class probabilities (N, K) of new images after one training."""
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
        plots.draw_learned(quick, step.model, sets.test, runtime, lambda name: pictures / f"{name}.png")
        predict = predictor(quick, step.model, runtime)
        return torch.cat([predict(batch.images).cpu() for batch in ordered_batches(new, runtime).epoch(0)])


def predicted(new: ImageSet, p: Tensor, path: pathlib.Path) -> str:
    """Draw some new images under what class probabilities p (N, K) say of them, and say where."""
    confidence, labels = p.max(1)
    degrees = folded(new.extras["angle"] - math.pi * (new.labels % 2)).rad2deg()
    titles = [
        f"{new.classes[label]} {100 * sure:.0f} %\nrotated by {angle:.0f} degrees"
        for label, sure, angle in zip(labels[:SHOWN].tolist(), confidence.tolist(), degrees.tolist(), strict=False)
    ]
    core_plots.sheet(new.images[:SHOWN], titles, path, fontsize=7)
    right = int((labels == new.labels)[:SHOWN].sum())
    return f"predictions for {len(titles)} images not trained on, {right} of them right: {path}"


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
