"""The options of all verbs but `train`. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.errors import UserError
from robustvision_core.run.options import EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluateOptions):
    """Test a trained model: accuracy, accuracy under rotation, widths by class, expected divergence by class."""

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
    """Largest rotation of the expected divergence: 10 in the paper on CIFAR10-LT, 180 on RotMNIST-LT."""
    out: str = ""
    """Folder for evaluation.json and the pictures; empty takes the run folder."""

    def __post_init__(self) -> None:
        if min(self.views, self.images, self.curve, self.align, self.degrees) < 0:
            raise UserError("views, images, curve, align and degrees must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(EvaluateOptions):
    """Align test images by mean-shift with the learned distributions."""

    data: str = ""
    """Align the test images of another set, resized to the run's size; empty takes the run's own."""
    images: str = "200"
    """Images of your own: one, a folder with all its subfolders, or a pattern in quotes, as "photos/*.jpg". A number
    takes so many test images, the first ones, or drawn by class where the set is sorted by class; 0 takes all."""
    degrees: float = 0.0
    """Rotate every test image by a random angle up to this first."""
    steps: int = 50
    """Of the mean-shift."""
    gamma: float = 0.1
    """Size of each, in (0, 1]."""
    samples: int = 100
    """Transforms that each mean is over."""
    compose: Literal["group", "lie"] = "group"
    """How steps add up: group is right for all transforms, lie the paper's."""
    out: str = ""
    """Folder for poses.csv, aligned/, alignment.json and the picture; empty takes the run folder."""
    strict: bool = False
    """Stop at an image of your own that cannot be read; else it is named and left out."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.samples < 1:
            raise UserError("images must be 0 or more, steps and samples at least 1")
        if self.own_images and self.data:
            raise UserError(f"give --data or images of your own, not both: --data {self.data} --images {self.images}")
        if not 0 <= self.degrees <= 180:
            raise UserError(f"degrees must be in [0, 180], got {self.degrees}")
        if not 0 < self.gamma <= 1:
            raise UserError(f"gamma must be in (0, 1], got {self.gamma}")

    @property
    def own_images(self) -> bool:
        """Whether `images` names files."""
        return not self.images.isdecimal()


@dataclass(frozen=True, kw_only=True)
class SampleConfig(EvaluateOptions):
    """Write views of images of your own, drawn from each one's learned distribution, with their densities."""

    images: str
    """An image, a folder with all its subfolders, or a pattern in quotes, as "photos/*.jpg"."""
    views: int = 8
    """Of each image."""
    seed: int = 0
    """Of the transforms."""
    strict: bool = False
    """Stop at an image that cannot be read; else it is named and left out."""
    out: str = "views"
    """Folder for the views, samples.csv and the picture."""

    def __post_init__(self) -> None:
        self.at_least(1, "views")


@dataclass(frozen=True)
class DemoConfig:
    """Train on sprites rotated by up to 45 degrees, up or upside down, and test on those rotated further."""

    epochs: int = 10
    """Passes over the training images with the flow."""
    train_size: int = 2000
    """Images to train on."""
    seed: int = 0
    """Of networks and order."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the pictures; empty makes a new one under runs/."""
