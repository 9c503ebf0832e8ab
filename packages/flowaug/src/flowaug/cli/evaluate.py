"""`flowaug evaluate`: accuracy, accuracy under rotation, learned widths and expected divergence."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import torch
from robustvision_core.data import DeviceBatches, ImageSet
from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from flowaug.cli import plots
from flowaug.cli.data import leading
from flowaug.cli.measures import measure, median_by_class, ordered_batches, over, predictor
from flowaug.cli.models import PROGRAM, Trained, can_align, read_run
from flowaug.cli.options import EvaluateConfig
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import Predict, by_class, expected_kl, invariance_width, rotation_curve


def evaluate(config: EvaluateConfig) -> None:
    """Print the measures, write them to evaluation.json and draw them."""
    stored = config.trained(TrainConfig, PROGRAM)
    if config.align and not can_align(stored):
        raise UserError("alignment needs a learned augmenter over affine transforms: leave --align away")
    folder = pathlib.Path(config.out or config.run)
    with Runtime.session(config.device, stored.precision, stored.seed) as runtime:
        trained = read_run(config, runtime)
        if config.views:
            trained.model.n_test = config.views
        found = measure(trained.config, trained.model, trained.sets.test, runtime)
        found |= under_rotation(config, trained, runtime)
    write_json(folder / "evaluation.json", found)
    plots.evaluation(found, folder / "plots")
    sys.stdout.write(report(found, trained.sets.train))


def report(found: dict[str, Any], train: ImageSet) -> str:
    """The measures as text."""
    lines = [f"{name.replace('_', ' '):<24} {found[name]:8.3f}" for name in ("accuracy", "plain_accuracy")]
    lines += [f"{name:<24} {found[name]:8.3f} nats" for name in ("entropy", "expected_kl") if name in found]
    if "curve" in found:
        names = [name for name in ("accuracy", "aligned") if name in found["curve"]]
        lines.append(f"{'under rotation':<18}" + "".join(f"{name:>14}" for name in names))
        for place, angle in enumerate(found["curve"]["degrees"]):
            values = "".join(f"{found['curve'][name][place]:14.3f}" for name in names)
            lines.append(f"  {angle:>6.0f} degrees  {values}")
    counts = train.class_counts().tolist()
    rows = [f"  {name:<16} {count:7d}" for name, count in zip(train.classes, counts, strict=True)]
    columns = [("width", "{:10.1f}"), ("expected_kl", "{:12.4f}")]
    shown = [(key, style) for key, style in columns if f"{key}_by_class" in found]
    for key, style in shown:
        values = found[f"{key}_by_class"]
        rows = [
            row + (style.format(value) if value is not None else "") for row, value in zip(rows, values, strict=True)
        ]
    heads = "".join(f"{key.replace('_', ' '):>12}" for key, _ in shown)
    return "\n".join([*lines, f"  {'class':<16} {'samples':>7}{heads}", *rows]) + "\n"


@torch.no_grad()
def under_rotation(config: EvaluateConfig, trained: Trained, runtime: Runtime) -> dict[str, Any]:
    """The curve of accuracy, the widths and the expected divergence, on some test images."""
    test = trained.sets.test
    some = leading(test, config.images)
    batches = ordered_batches(some, runtime)
    predict = predictor(trained.config, trained.model, runtime)
    found: dict[str, Any] = {"images": len(some)}
    if config.curve:
        degrees = torch.linspace(-180, 180, config.curve).tolist() if config.curve > 1 else [0.0]
        found["curve"] = {"degrees": degrees, "accuracy": _curve(predict, batches, degrees)}
        if config.align:
            aligned = predictor(trained.config, trained.model, runtime, config.align)
            found["curve"]["aligned"] = _curve(aligned, batches, degrees)
    generator = torch.Generator(runtime.device).manual_seed(derive_seed(trained.config.seed, "turns"))
    kl = over(batches, lambda images: expected_kl(predict, images, config.degrees, generator=generator))
    labels = some.labels.to(kl.device)
    found |= {"expected_kl": float(kl.mean()), "degrees": config.degrees}
    found["expected_kl_by_class"] = _plain(by_class(kl, labels, some.num_classes))
    augmenter = trained.model.augmenter
    if "rot" in augmenter.space.names and trained.config.learns:
        widths = over(batches, lambda images: invariance_width(augmenter, images, 500, generator=generator))
        found["width_by_class"] = _plain(median_by_class(widths, labels, some.num_classes))
    found["classes"], found["samples"] = list(some.classes), trained.sets.train.class_counts().tolist()
    return found


def _curve(predict: Predict, batches: DeviceBatches, degrees: list[float]) -> list[float]:
    pairs = ((batch.images, batch.labels) for batch in batches.epoch(0))
    return rotation_curve(predict, pairs, degrees).tolist()


def _plain(values: Iterable[Tensor] | Tensor) -> list[float | None]:
    """As JSON has it: None for NaN."""
    return [None if value != value else float(value) for value in values]
