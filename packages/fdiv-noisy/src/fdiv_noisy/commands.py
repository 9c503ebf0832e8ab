"""`fdiv-noisy noise make`, `noise inspect` and `estimate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from robustvision_core import data

from fdiv_noisy import noise, plots
from fdiv_noisy.estimation import estimate
from fdiv_noisy.noisy_set import load, noisy_labels
from fdiv_noisy.recipes import TrainConfig


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

    def train_config(self, **changes: int) -> TrainConfig:
        """The same data as training would load it."""
        quick = TrainConfig.PRESETS["quick"]
        return replace(
            quick, data=self.data, noise=self.noise, noise_seed=self.noise_seed, data_root=self.data_root, **changes
        )


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
    plot: str = ""
    """Write the estimated transition matrix as a picture here."""


def make_noise(config: MakeConfig) -> None:
    """Write noisy labels."""
    train_config = config.train_config()
    clean = data.load(config.data, "train", config.data_root or None)
    labels = noisy_labels(train_config, clean)
    noise.save_labels(config.out, labels, clean=clean.labels)
    wrong = float((labels != clean.labels).float().mean())
    sys.stdout.write(f"{len(labels)} labels, {100 * wrong:.2f} % wrong, in {config.out}\n")


def inspect_noise(config: InspectConfig) -> None:
    """Print what the noise is."""
    clean = data.load(config.data, "train", config.data_root or None)
    found = noise.describe(noisy_labels(config.train_config(), clean), clean.labels, clean.num_classes)
    sys.stdout.write(f"{found}\n")
    if config.plot and found.transition is not None:
        plots.transition(found.transition, clean.classes, config.plot, f"{config.data}, {config.noise}")


def estimate_noise(config: EstimateConfig) -> None:
    """Print what the labels say of their noise."""
    train = load(config.train_config(train_size=config.train_size)).in_memory()
    report = estimate(train.images, train.labels, train.num_classes, seed=config.seed)
    sys.stdout.write(f"{report}\n")
    if config.plot:
        plots.transition(report.matrix(), train.classes, config.plot, f"{config.data}: estimated noise")
