"""Options of every verb but `train`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from robustvision_core.run.options import EvaluateOptions

from fdiv_noisy.cli.recipes import TrainConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluateOptions):
    """Test a trained classifier on the clean test set of its data."""

    out: str = ""
    """Write the confusion matrix as a picture here."""


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
    image_size: int = TrainConfig.PRESETS["quick"].image_size
    """Side in pixels that images are loaded at, where their set has no size of its own."""

    def train_config(self, **changes: Any) -> TrainConfig:
        """The same data as training would load it."""
        same = ("data", "noise", "noise_seed", "data_root", "download", "image_size")
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
    network: str = "cnn"
    """Of the networks that are trained, as of train; cnn takes a small one for grey images."""
    plot: str = "noise.png"
    """Draw the estimated transition matrix, and how far it can be believed, here; empty draws nothing."""
    progress: bool = True
    """Show a bar on a terminal."""


@dataclass(frozen=True)
class IssuesConfig(DataConfig):
    """Say of every label how likely it is wrong, and what it should be."""

    noise: str = "none"
    """Noise to try it on, as of train; none takes the labels as they are."""
    probs: str = ""
    """Your own out-of-fold probabilities (N, K), .npy or .pt, in the order of the training set; empty trains
    networks."""
    network: str = "cnn"
    """Of the networks that are trained, as of train; cnn takes a small one for grey images."""
    seed: int = 0
    """Of those networks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = "issues"
    """Folder for issues.csv and issues.png."""
    relabel: str = ""
    """Write the training set with its suspected labels replaced by the suggestions here: .npz (images and labels, which
    train takes as npz:FILE), .pt (labels only, for --noise file:FILE) or, of folder: and csv:, .csv (csv:FILE)."""
    drop: str = ""
    """Write the training set without the suspected samples here: .npz or, of folder: and csv:, .csv."""
    threshold: float = 0.5
    """A label is suspected where its probability to be wrong is above this."""
    progress: bool = True
    """Show a bar on a terminal."""


@dataclass(frozen=True)
class DemoConfig:
    """Train on scikit-learn's digits under heavy label noise, with and without the package's losses."""

    epochs: int = 30
    """Passes over the 1,442 images."""
    seed: int = 0
    """Of the networks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the picture; empty makes a new one under runs/."""
    progress: bool = True
    """Show a bar on a terminal."""
