"""`fdiv-noisy noise make`, `noise inspect` and `estimate`."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass, replace

from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime

from fdiv_noisy import noise
from fdiv_noisy.cli import plots
from fdiv_noisy.cli.criteria import find_noise
from fdiv_noisy.cli.data import clean_images, load, noisy_labels
from fdiv_noisy.cli.recipes import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Which noisy labels."""

    data: str = "digits"
    """Data set, as of train."""
    noise: str = "sparse-high"
    """Label noise, as of train."""
    noise_seed: int = 0
    """Draws the noise."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""

    def train_config(self, **changes: int) -> TrainConfig:
        """The same data as training would load it."""
        same = ("data", "noise", "noise_seed", "data_root", "download")
        return replace(TrainConfig.PRESETS["quick"], **{name: getattr(self, name) for name in same}, **changes)


@dataclass(frozen=True)
class MakeConfig(DataConfig):
    """Write a file of noisy labels for the training set."""

    out: str = "noisy_labels.pt"
    """The file, in the layout of the published ones."""


@dataclass(frozen=True)
class InspectConfig(DataConfig):
    """Compare noisy labels with the clean ones."""

    plot: str = ""
    """Write the transition matrix as a picture here."""


@dataclass(frozen=True)
class EstimateConfig(DataConfig):
    """Find the noise in noisy labels, which are all that is looked at."""

    train_size: int = 0
    """First so many samples; 0 takes all."""
    seed: int = 0
    """Of the small networks that are trained."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    plot: str = ""
    """Write the estimated transition matrix as a picture here."""


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
    train_config = config.train_config(train_size=config.train_size, seed=config.seed)
    with Runtime.session(config.device, seed=config.seed) as runtime:
        train = load(train_config).in_memory()
        report = find_noise(train_config, train, runtime)
    sys.stdout.write(f"{report}\n")
    if config.plot:
        plots.transition(report.matrix(), train.classes, config.plot, f"{config.data}: estimated noise")
