"""Configurations of the verbs but train. Imports nothing heavy, so that their help is there at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.run.options import Checks, EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluateOptions):
    """Test a trained classifier on the test sets of its data."""

    out: str = ""
    """Write the confusion matrix on the target as a picture here."""


@dataclass(frozen=True)
class DiagnoseConfig:
    """Print the table of a run's selections, a verdict, and what to do about it."""

    run: str
    """Run folder that training wrote, or is writing."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Write MNIST-M from MNIST and photos: the same images on every machine."""

    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch MNIST where it is missing."""
    out: str
    """The .npz file, or the folder of PNG files, to write."""
    format: Literal["npz", "png"] = "npz"
    """npz holds x_train, y_train, x_test and y_test; png is out/SPLIT/CLASS/NUMBER.png."""
    photos: str = ""
    """Folder or archive of photos; empty looks for BSDS500 under the data root."""
    backgrounds: Literal["photos", "procedural"] = "photos"
    """procedural needs no photos."""
    size: int = 28
    """28, or 32 by a black border around the digit."""
    seed: int = 0
    """Of the crops."""
    binarise: bool = True
    """Digits are black or white before they are blended, as in the published set."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(Checks):
    """The eight rows of the paper's table 2 for a pair of domains: source and target alone, CORAL, and pseudo-labels
    with no, few and more labelled target samples. A stopped table goes on where it was."""

    data: str
    """Domain pair with labels in both, as folder:PATH:SOURCE:TARGET; see train --help."""
    out: str = "table2"
    """Folder of the runs and of table2.csv."""
    preset: Literal["paper", "official", "balanced"] = "paper"
    """The recipe of the rows with pseudo-labels."""
    network: str = "resnet18"
    """cnn, resnet18 (for small images), timm:NAME or torchvision:NAME."""
    weights: str = ""
    """A file of weights that the network of timm or torchvision starts from."""
    image_size: int = 224
    """Side in pixels that images are loaded at."""
    pretrain: int = 10
    """Epochs on labelled samples alone, and of CORAL after them."""
    epochs: int = 160
    """Epochs with pseudo-labels."""
    period: int = 20
    """Epochs between selections."""
    rho: float = 4.0
    """Of the adaptive threshold; 4 is the paper's for Office-31."""
    batch_size: int = 16
    """Samples of each domain in a step."""
    small: float = 0.1
    """Labelled target samples of the fifth and sixth row: a share of each class, or from 1 on so many of each."""
    large: float = 0.2
    """Of the last two rows."""
    seeds: int = 1
    """Runs of each row, with the seeds from 0 on."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "auto"
    """Of the network: auto, fp32 or bf16."""
    progress: bool = True
    """Show bars on a terminal."""

    def __post_init__(self) -> None:
        self.at_least(1, "seeds", "pretrain", "epochs", "period", "image_size")
        self.positive("small", "large")


@dataclass(frozen=True)
class DemoConfig:
    """Train on scikit-learn's digits, adapt to others on coloured backgrounds without their labels."""

    seed: int = 0
    """Of the networks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the pictures; empty makes a new one under runs/."""
