"""`flowaug evaluate`: accuracy, accuracy under rotation, learned widths and expected divergence."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from robustvision_core.data import DeviceBatches, ImageSet
from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from flowaug.baselines import LocationRelationAugmenter
from flowaug.classifier import AugmentedClassifier
from flowaug.cli import plots
from flowaug.cli.data import Sets, leading, load
from flowaug.cli.models import make_model
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import Predict, by_class, expected_kl, invariance_width, rotation_curve

BATCH = 250
ENTROPY_SAMPLES = 20  # of each of the test images


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained model: accuracy, accuracy under rotation, widths by class, expected divergence by class."""

    run: str
    """Run folder that training wrote."""
    which: str = "checkpoint"
    """checkpoint (the last epoch) or best (the selected one)."""
    views: int = 0
    """Augmented views per image; 0 takes the run's."""
    images: int = 1000
    """So many test images for all but accuracy and entropy, the first ones, or drawn by class where the set is sorted
    by class; 0 takes all."""
    curve: int = 13
    """Angles of the curve of accuracy, from -180 to 180 degrees; 0 leaves it out."""
    align: int = 0
    """Steps of mean-shift before prediction, for a second curve (10 in the paper); 0 leaves it out."""
    degrees: float = 10.0
    """Largest turn of the expected divergence: 10 in the paper on CIFAR10-LT, 180 on RotMNIST-LT."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for evaluation.json and the pictures; empty takes the run folder."""

    def __post_init__(self) -> None:
        if min(self.views, self.images, self.curve, self.align, self.degrees) < 0:
            raise UserError("views, images, curve, align and degrees must be 0 or more")


@dataclass(frozen=True)
class Trained:
    """A run that was read back."""

    config: TrainConfig
    sets: Sets
    model: AugmentedClassifier


def read_run(folder: str, which: str, runtime: Runtime, data_root: str) -> Trained:
    """The model of a run folder on the runtime's device, in evaluation mode, with its data.

    Raises:
        UserError: The folder holds no run, or its data cannot be had.
    """
    stored = read_config(folder, TrainConfig, "flowaug train")
    config = replace(stored, data_root=data_root, resume=False)
    sets = load(config)
    model = make_model(config, sets.train).to(runtime.device).eval()
    load_part(model, pathlib.Path(folder) / f"{which}.pt", "model")
    return Trained(config, sets, model)


def evaluate(config: EvaluateConfig) -> None:
    """Print the measures, write them to evaluation.json and draw them."""
    stored = read_config(config.run, TrainConfig, "flowaug train")
    if config.align and not can_align(stored):
        raise UserError("alignment needs a learned augmenter over affine transforms: leave --align away")
    folder = pathlib.Path(config.out or config.run)
    with Runtime.session(config.device, stored.precision, stored.seed) as runtime:
        trained = read_run(config.run, config.which, runtime, config.data_root)
        if config.views:
            trained.model.n_test = config.views
        found = measure(trained.config, trained.model, trained.sets.test, runtime)
        found |= under_rotation(config, trained, runtime)
    write_json(folder / "evaluation.json", found)
    plots.evaluation(found, folder / "plots")
    sys.stdout.write(report(found, trained.sets.train))


def can_align(config: TrainConfig) -> bool:
    """Whether a run has transforms whose steps compose."""
    return config.learns and config.space == "affine"


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


def predictor(config: TrainConfig, model: AugmentedClassifier, runtime: Runtime, align: int = 0) -> Predict:
    """Images (B, C, H, W) on any device to class probabilities (B, K), with transforms of a seed of their own.

    A fixed augmenter is for training alone; InstaAug's crops are the likeliest ones, as published. With `align` the
    images take so many steps of mean-shift first.
    """
    options = {"steps": align} if align else None
    generator = torch.Generator(runtime.device).manual_seed(derive_seed(config.seed, "test views"))

    @torch.no_grad()
    def predict(images: Tensor) -> Tensor:
        images = images.to(runtime.device)
        with runtime.autocast():
            if not config.learns:
                return model.classifier(images).float().softmax(-1)
            if isinstance(model.augmenter, LocationRelationAugmenter):
                chosen = model.augmenter.most_likely(images, model.n_test)
                return model.logits(model.augmenter.warp(images, chosen)).float().softmax(-1).mean(1)
            return model.predict(images, align=options, generator=generator)

    return predict


def ordered_batches(data: ImageSet, runtime: Runtime) -> DeviceBatches:
    """All images in order, in [0, 1]."""
    return DeviceBatches(data, BATCH, mean=0.0, std=1.0, device=runtime.device)


@torch.no_grad()
def share_right(predict: Callable[[Tensor], Tensor], batches: DeviceBatches) -> float:
    """Accuracy over all batches, in [0, 1]."""
    hits = [(predict(batch.images).argmax(-1) == batch.labels).sum() for batch in batches.epoch(0)]
    return float(torch.stack(hits).sum()) / len(batches.data)


def accuracy(config: TrainConfig, model: AugmentedClassifier, batches: DeviceBatches, runtime: Runtime) -> float:
    """Accuracy of the augmented prediction."""
    return share_right(predictor(config, model, runtime), batches)


@torch.no_grad()
def measure(config: TrainConfig, model: AugmentedClassifier, data: ImageSet, runtime: Runtime) -> dict[str, Any]:
    """Accuracy with augmented views and of the classifier alone, and the augmenter's entropy in nats."""
    model.eval()
    batches = ordered_batches(data, runtime)
    found: dict[str, Any] = {
        "accuracy": accuracy(config, model, batches, runtime),
        "plain_accuracy": share_right(model.classifier, batches),
    }
    if config.learns:
        generator = torch.Generator(runtime.device).manual_seed(derive_seed(config.seed, "test entropy"))
        values = _over(batches, lambda images: model.augmenter.entropy(images, ENTROPY_SAMPLES, generator))
        found["entropy"] = float(values.mean())
    return found


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
    kl = _over(batches, lambda images: expected_kl(predict, images, config.degrees, generator=generator))
    labels = some.labels.to(kl.device)
    found |= {"expected_kl": float(kl.mean()), "degrees": config.degrees}
    found["expected_kl_by_class"] = _plain(by_class(kl, labels, some.num_classes))
    augmenter = trained.model.augmenter
    if "rot" in augmenter.space.names and trained.config.learns:
        widths = _over(batches, lambda images: invariance_width(augmenter, images, 500, generator=generator))
        found["width_by_class"] = _plain(median_by_class(widths, labels, some.num_classes))
    found["classes"], found["samples"] = list(some.classes), trained.sets.train.class_counts().tolist()
    return found


def _curve(predict: Predict, batches: DeviceBatches, degrees: list[float]) -> list[float]:
    pairs = ((batch.images, batch.labels) for batch in batches.epoch(0))
    return rotation_curve(predict, pairs, degrees).tolist()


def median_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Medians (K,) of values (N,) within every class; NaN for a class without any."""
    parts = [values[labels == c] for c in range(num_classes)]
    return torch.stack([part.median() if len(part) else values.new_tensor(torch.nan) for part in parts])


def _over(batches: DeviceBatches, measured: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([measured(batch.images) for batch in batches.epoch(0)])


def _plain(values: Iterable[Tensor] | Tensor) -> list[float | None]:
    """As JSON has it: None for NaN."""
    return [None if value != value else float(value) for value in values]
