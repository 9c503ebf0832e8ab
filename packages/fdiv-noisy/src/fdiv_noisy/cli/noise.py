"""`fdiv-noisy noise make`, `noise inspect` and `estimate`."""

from __future__ import annotations

import pathlib
import sys

from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime

from fdiv_noisy import noise
from fdiv_noisy.cli import plots
from fdiv_noisy.cli.criteria import posteriors
from fdiv_noisy.cli.data import clean_images, load, noisy_labels
from fdiv_noisy.cli.options import EstimateConfig, InspectConfig, MakeConfig
from fdiv_noisy.estimation import estimate
from fdiv_noisy.estimation.doubts import other_rates, wrong_by_typicality


def make_noise(config: MakeConfig) -> None:
    """Write noisy labels."""
    train_config = config.train_config()
    clean = clean_images(train_config, "train")
    labels = noisy_labels(train_config, clean)
    try:
        pathlib.Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        noise.save_labels(config.out, labels, clean=clean.labels)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--out {config.out} cannot be written: {error}") from error
    wrong = float((labels != clean.labels).float().mean())
    sys.stdout.write(f"{len(labels)} labels, {100 * wrong:.2f} % wrong, in {config.out}\n")


def inspect_noise(config: InspectConfig) -> None:
    """Print what the noise is."""
    train_config = config.train_config()
    clean = clean_images(train_config, "train")
    found = noise.describe(noisy_labels(train_config, clean), clean.labels, clean.num_classes, names=clean.classes)
    sys.stdout.write(f"{found}\n")
    if config.plot and found.transition is not None:
        plots.transition(found.transition, clean.classes, config.plot, f"{config.data}, {config.noise}")


def estimate_noise(config: EstimateConfig) -> None:
    """Print what the labels say of their noise, how far that can be believed, and draw both."""
    changes = {"train_size": config.train_size, "seed": config.seed, "network": config.network}
    train_config = config.train_config(progress=config.progress, **changes)
    with Runtime.session(config.device, seed=config.seed) as runtime:
        train = load(train_config).in_memory()
        probs = posteriors(train_config, train, runtime)
    labels = (train.labels, train.num_classes)
    report = estimate(train.images, *labels, probs=probs, seed=config.seed, names=train.classes)
    rates = other_rates(probs, train.labels)
    others = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
    sys.stdout.write(f"{report}\nother estimators say: {others}\n")
    if config.plot:
        plots.noise(report, rates, wrong_by_typicality(probs, train.labels), train.classes, config.plot)
        sys.stdout.write(f"drawn in {config.plot}\n")
