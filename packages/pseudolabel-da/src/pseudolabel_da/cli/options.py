"""Configurations of the verbs but train. Imports nothing heavy, so that their help is there at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.run.options import EvaluateOptions


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


@dataclass(frozen=True)
class DemoConfig:
    """Train on scikit-learn's digits, adapt to others on coloured backgrounds without their labels."""

    seed: int = 0
    """Of the networks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the pictures; empty makes a new one under runs/."""
