"""`fdiv-noisy noise make`, `noise inspect` and `estimate`."""

from __future__ import annotations

import pathlib
import sys

from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime

from fdiv_noisy import noise
from fdiv_noisy.cli import plots
from fdiv_noisy.cli.criteria import find_noise
from fdiv_noisy.cli.data import clean_images, load, noisy_labels
from fdiv_noisy.cli.options import EstimateConfig, InspectConfig, MakeConfig


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
    found = noise.describe(noisy_labels(train_config, clean), clean.labels, clean.num_classes)
    sys.stdout.write(f"{found}\n")
    if config.plot and found.transition is not None:
        plots.transition(found.transition, clean.classes, config.plot, f"{config.data}, {config.noise}")


def estimate_noise(config: EstimateConfig) -> None:
    """Print what the labels say of their noise."""
    train_config = config.train_config(train_size=config.train_size, seed=config.seed, progress=config.progress)
    with Runtime.session(config.device, seed=config.seed) as runtime:
        train = load(train_config).in_memory()
        report = find_noise(train_config, train, runtime)
    sys.stdout.write(f"{report}\n")
    if config.plot:
        plots.transition(report.matrix(), train.classes, config.plot, f"{config.data}: estimated noise")
