"""`rml-meta demo`: glyphs whose colour gives the label away in training, and misleads in the test."""

from __future__ import annotations

import pathlib
import sys
from typing import NamedTuple

import torch
from robustvision_core.data import ImageSet, select_classes
from robustvision_core.predict import Predictor, Preprocessing, predict_unseen
from robustvision_core.run.folder import new_folder
from robustvision_core.run.runtime import Runtime
from tqdm import tqdm

from rml_meta.cli import class_split, learners, plots
from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.options import DemoConfig
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.taught import taught
from rml_meta.cli.train import fit_on, make_step, novel_tasks, test_novel
from rml_meta.methods import FewShotMethod

METHODS = ("maml", "rml")
TESTS = {"novel_as_trained": "colours as in training", "novel": "colours say nothing"}


def demo(config: DemoConfig) -> None:
    """Print the table, and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = pathlib.Path(config.out) if config.out else new_folder("runs", "rml-meta-demo")
    found: dict[str, Trained] = {}
    with tqdm(total=len(METHODS), desc="demo", disable=not sys.stderr.isatty()) as bar:
        for method in METHODS:
            found[method] = run(recipe(config, method))
            bar.update()
    results = {look: {m.upper(): one.accuracy[name] for m, one in found.items()} for name, look in TESTS.items()}
    said = predict_unseen(found["rml"].predictor, found["rml"].new, folder)
    path = folder / "plots" / "demo.png"
    title = "5 novel glyphs, one image each to learn from"
    plots.bars(results, path, title=title, chance=20)
    lines = [f"accuracy on {title}, %", " " * 26 + "".join(f"{method.upper():>8}" for method in METHODS)]
    lines += [f"{look:<26}" + "".join(f"{value:>8.1f}" for value in of.values()) for look, of in results.items()]
    sys.stdout.write("\n".join([*lines, f"picture: {path}", said]) + "\n")


class Trained(NamedTuple):
    """What one training gave.

    Attributes:
        accuracy: In percent, by test.
        predictor: The method, shown an image each of five novel classes.
        new: Other images of these.
    """

    accuracy: dict[str, float]
    predictor: Predictor
    new: ImageSet


def recipe(config: DemoConfig, method: str) -> TrainConfig:
    """What is trained."""
    return TrainConfig.PRESETS["colour"].changed(
        method=method,
        data="glyphs",
        epochs=1,
        steps=config.steps,
        tasks=4,
        val_episodes=2,
        test_episodes=config.episodes,
        seed=config.seed,
        device=config.device,
        progress=False,
    )


def run(config: TrainConfig) -> Trained:
    """One training."""
    with Runtime.session(config.device, config.precision, config.seed) as runtime:
        split = class_split.load(config)
        step = make_step(config, split)
        fit_on(config, split, runtime, None, step)
        found = test_novel(step.method, novel_tasks(config, split, runtime), runtime)
        predictor, new = shown_one_each(config, split, step.method, runtime)
    return Trained({name: 100 * value["accuracy"] for name, value in found.items()}, predictor, new)


def shown_one_each(
    config: TrainConfig, split: ClassSplit, method: FewShotMethod, runtime: Runtime
) -> tuple[Predictor, ImageSet]:
    """The method, taught five novel classes by their first images, and the other images of these."""
    novel = select_classes(split.novel, range(config.ways))
    first = torch.tensor([int((novel.labels == label).nonzero()[0]) for label in range(config.ways)])
    support, rest = novel.take(first), torch.ones(len(novel), dtype=torch.bool).index_fill_(0, first, False)
    prepared = Preprocessing.of(split.base.shape, *learners.statistics(config, split.base))
    where = runtime.device
    predictor = taught(method, prepared, support.images.to(where), support.labels.to(where), novel.classes)
    return predictor, novel.take(rest)
