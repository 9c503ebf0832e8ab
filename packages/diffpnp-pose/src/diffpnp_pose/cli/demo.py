"""`diffpnp-pose demo`: what training through the PnP solution does to poses, in about a minute."""

from __future__ import annotations

import copy
import pathlib
import sys
from dataclasses import replace

import torch
from robustvision_core.data import PoseSet
from robustvision_core.run import plots as core_plots
from robustvision_core.run.folder import new_folder
from robustvision_core.run.runtime import Runtime
from torch import nn
from tqdm import tqdm

from diffpnp_pose.cli import plots
from diffpnp_pose.cli.camera import pinhole
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import make_network, predict
from diffpnp_pose.cli.options import DemoConfig
from diffpnp_pose.cli.outputs import made
from diffpnp_pose.cli.prediction.about import PosePreprocessing
from diffpnp_pose.cli.prediction.predictor import PosePredictor
from diffpnp_pose.cli.prediction.write import SHEET, draw_sheet
from diffpnp_pose.cli.scoring import score
from diffpnp_pose.cli.train import Step, fit_on

LOSSES = {"lh": "heat-maps alone", "lp": "through the PnP"}
ROWS = {"NPE": ("position error, % of distance", 100.0), "AD": ("angle, degrees", 57.29577951308232)}


def demo(config: DemoConfig) -> None:
    """Print the table, and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = made(config.out or new_folder("runs", "diffpnp-pose-demo"))
    results = run(config, folder / "plots")
    lines = [
        f"mean error on {config.test_size} rendered images",
        " " * 32 + "".join(f"{title:>20}" for title in LOSSES.values()),
    ]
    for name, (title, factor) in ROWS.items():
        lines.append(f"{title:<32}" + "".join(f"{factor * results[loss][name]:>20.1f}" for loss in LOSSES))
    for name in ("ADD5", "Proj2"):
        lines.append(f"{name + ', %':<32}" + "".join(f"{results[loss][name]:>20.1f}" for loss in LOSSES))
    draw(results, folder / "plots" / "demo.png")
    shown, sheet = min(SHEET, config.test_size), folder / "plots" / "predictions.png"
    lines += [f"pictures: {folder / 'plots'}", f"predictions for {shown} images not trained on: {sheet}"]
    sys.stdout.write("\n".join(lines) + "\n")


def run(config: DemoConfig, pictures: pathlib.Path) -> dict[str, dict[str, float]]:
    """Metrics by loss; both go on from the same network."""
    common, results, networks = config.train_config(), {}, {}
    with Runtime.session(config.device, seed=config.seed) as runtime:
        training, test = load(common, "train"), load(common, "test")
        first = replace(common, epochs=config.epochs, seed=config.seed).with_pose(loss="lh", epochs=0)
        with tqdm(total=1 + len(LOSSES), desc="demo", disable=not sys.stderr.isatty()) as bar:
            base = Step(make_network(first, training), first)
            fit_on(first, training, None, runtime, None, base)
            bar.update()
            for loss in LOSSES:
                then = replace(common, seed=config.seed + 1, epochs=0).with_pose(loss=loss, epochs=config.pose_epochs)
                networks[loss] = copy.deepcopy(base.network)
                step = Step(networks[loss], then)
                fit_on(then, training, None, runtime, None, step)
                found = predict(step.network, test, runtime, "exact")
                results[loss] = score(test, found)
                some = torch.arange(min(8, len(test)))
                shown = test.take(some).to("cpu")
                plots.poses(shown, found.R[some], found.t[some], found.valid[some], pictures / f"poses_{loss}.png")
                bar.update()
        look(networks["lp"], test, pictures / "predictions.png")
    return results


def look(network: nn.Module, test: PoseSet, path: pathlib.Path) -> None:
    """The network at work as `predict` has it, on images that it was not trained on."""
    _, height, width = test.shape
    camera = pinhole(test.K[0].cpu(), (width, height))
    predictor = PosePredictor(network.cpu(), PosePreprocessing(width, height, 0.0), test.objects[0], camera=camera)
    ready = [predictor.prepare(image) for image in test.images[:SHEET].cpu()]
    found = predictor.find(ready)
    draw_sheet(predictor, [(one, found, k) for k, one in enumerate(ready)], path)


def draw(results: dict[str, dict[str, float]], path: pathlib.Path) -> None:
    """Bars of both errors by loss."""
    drawn, panels = core_plots.figure(7.0, 3.4, ncols=2)
    for axes, (name, (title, factor)) in zip(panels, ROWS.items(), strict=True):
        bars = axes.bar(list(LOSSES.values()), [factor * results[loss][name] for loss in LOSSES], 0.6)
        axes.bar_label(bars, fmt="%.1f")
        axes.set(title=title)
        axes.margins(y=0.15)
    core_plots.save(drawn, path)
