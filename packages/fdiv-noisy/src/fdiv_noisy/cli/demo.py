"""`fdiv-noisy demo`: what the losses do on real digits with wrong labels, in about a minute."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import replace
from typing import NamedTuple

import torch
from robustvision_core.data import ImageSet
from robustvision_core.predict import Predictor, Preprocessing, predict_unseen
from robustvision_core.run import plots
from robustvision_core.run.folder import new_folder
from robustvision_core.run.metrics import accuracy
from robustvision_core.run.runtime import Runtime
from tqdm import tqdm

from fdiv_noisy.cli import criteria
from fdiv_noisy.cli.classifier import confusion_on_test, image_shape, make_classifier
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.options import DemoConfig
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.cli.train import Step, fit_on

NOISES = {"sparse-high": "flips inside pairs of classes", "uniform-high": "flips to any class"}
LOSSES = {"ce": "cross-entropy", "kl": "f-divergence KL", "auto": "found by the code"}


def demo(config: DemoConfig) -> None:
    """Print the table, and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = pathlib.Path(config.out) if config.out else new_folder("runs", "fdiv-noisy-demo")
    found: dict[tuple[str, str], Trained] = {}
    with tqdm(
        total=len(NOISES) * len(LOSSES), desc="demo", disable=not (config.progress and sys.stderr.isatty())
    ) as bar:
        for noise in NOISES:
            for loss in LOSSES:
                found[noise, loss] = run(config, noise, loss)
                bar.update()
    results = {loss: {noise: found[noise, loss].accuracy for noise in NOISES} for loss in LOSSES}
    wrong = {noise: one.wrong for (noise, _), one in found.items()}
    last = list(found.values())[-1]
    lines = ["clean test accuracy on digits, %", " " * 20 + "".join(f"{noise:>16}" for noise in NOISES)]
    lines.append(f"{'wrong labels':<20}" + "".join(f"{100 * wrong[noise]:>16.1f}" for noise in NOISES))
    for loss, title in LOSSES.items():
        lines.append(f"{title:<20}" + "".join(f"{100 * results[loss][noise]:>16.1f}" for noise in NOISES))
    draw(results, folder / "plots" / "demo.png")
    lines.append(predict_unseen(last.predictor, last.new, folder))
    sys.stdout.write("\n".join([*lines, f"picture: {folder / 'plots' / 'demo.png'}", f"run folder: {folder}"]) + "\n")


class Trained(NamedTuple):
    """What one training gave.

    Attributes:
        wrong: Share of wrong labels.
        accuracy: On clean test images.
        predictor: The classifier.
        new: The test images.
    """

    wrong: float
    accuracy: float
    predictor: Predictor
    new: ImageSet


def run(config: DemoConfig, noise: str, loss: str) -> Trained:
    """One training."""
    quick = replace(TrainConfig.PRESETS["quick"], noise=noise, loss=loss, epochs=config.epochs, seed=config.seed)
    with Runtime.session(config.device, seed=config.seed) as runtime:
        noisy = load(quick)
        criterion, _ = criteria.build(quick, noisy)
        classifier = make_classifier(quick, noisy.train)
        step = Step(classifier.network, criterion)
        fit_on(replace(quick, progress=False), noisy, runtime, None, step, classifier)
        found = confusion_on_test(quick, classifier, noisy, runtime)
    shape = image_shape(quick, noisy.train)
    prepared = Preprocessing.of((*shape, shape[1]), classifier.mean, classifier.std)
    predictor = Predictor(classifier.network, prepared, noisy.train.classes, device=runtime.device)
    assert isinstance(noisy.test, ImageSet)  # nothing is streamed here
    return Trained(noisy.wrong_labels or 0.0, accuracy(found), predictor, noisy.test)


def draw(results: dict[str, dict[str, float]], path: pathlib.Path) -> None:
    """Bars of accuracy by noise and loss."""
    drawn, axes = plots.figure()
    width = 0.8 / len(LOSSES)
    for place, (loss, title) in enumerate(LOSSES.items()):
        heights = [100 * results[loss][noise] for noise in NOISES]
        bars = axes.bar([x + place * width for x in range(len(NOISES))], heights, width, label=title)
        axes.bar_label(bars, fmt="%.0f")
    axes.set_xticks([x + width for x in range(len(NOISES))], [f"{name}\n{text}" for name, text in NOISES.items()])
    axes.set(ylabel="clean test accuracy, %", ylim=(0, 105), title="real digits, wrong training labels")
    axes.legend(fontsize=8)
    plots.save(drawn, path)
