"""Configurations of the verbs beside training; nothing here imports torch, so that the help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.predict.options import ExportOptions, PredictOptions
from robustvision_core.run.options import Checks, EvaluateOptions

from rml_meta.cli.recipes import METHODS, TrainConfig
from rml_meta.cli.reported import PROTOCOLS


@dataclass(frozen=True)
class DemoConfig(Checks):
    """Train MAML and RML on drawn glyphs in two environments, each with colours that say the label its own way."""

    steps: int = 75
    """Training steps of each method."""
    episodes: int = 50
    """Test tasks."""
    seed: int = 0
    """Of the networks and the training tasks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the picture; empty makes a new one under runs/."""

    def __post_init__(self) -> None:
        self.at_least(1, "steps")
        self.at_least(2, "episodes")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluateOptions):
    """Test a trained method on novel classes."""

    which: Literal["checkpoint", "best"] = "best"
    """best (the epoch that validation chose) or checkpoint (the last one)."""
    data: str = ""
    """Novel classes of this set (cross-domain); empty takes those of the run."""
    part: Literal["auto", "novel", "val", "all"] = "auto"
    """Which classes: novel, val (validation) or all. auto is novel, or all of your own set without parts."""
    ways: int = 0
    """Classes a task; 0 is as in training. Methods with a head of so many outputs cannot change it."""
    shots: int = 0
    """Support images a class; 0 is as in training."""
    episodes: int = 600
    """Tasks."""
    episode_seed: int = 0
    """Draws them: the same for every method."""
    environments: str = ""
    """How the tasks look, as --environments.test of train; empty is as in its test."""
    correlations: tuple[float, ...] = ()
    """Of label and colour; empty is as in its test."""
    transductive: bool | None = None
    """Normalise query images together; None is as in training."""
    out: str = ""
    """Write the result with every task's accuracy as JSON here."""

    def __post_init__(self) -> None:
        self.at_least(2, "episodes")
        self.at_least(0, "shots", "ways")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(PredictOptions):
    """Learn new classes from a folder of examples, and label new images; the training data is not needed."""

    support: str
    """A folder of class folders, each with some images to learn the class from: any number of either."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ExportOptions):
    """Write a classifier of new classes, or the feature extractor, in a form that needs none of our packages."""

    support: str = ""
    """A folder of class folders: what it teaches is written, images to logits of its classes. Empty writes the network
    before the head, images to features, of methods that compare embeddings."""


@dataclass(frozen=True)
class InspectConfig(Checks):
    """Say before training whether the environments differ in a nuisance that says the label, where rml helps."""

    data: str = "glyphs"
    """Base classes, as of train."""
    environments: str = "colour"
    """Two or more transforms by name, as identity,jitter; colour or colour-shared, as of train."""
    correlations: tuple[float, ...] = (0.9, 0.8)
    """Of label and colour, one an environment."""
    ways: int = 5
    """Classes a task."""
    episodes: int = 100
    """Tasks."""
    image_size: int = 28
    """Height and width in pixels."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""
    seed: int = 0
    """Of the tasks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Draw the exchange of probes here, as exchange.png."""

    def __post_init__(self) -> None:
        self.at_least(2, "ways", "episodes")
        self.at_least(1, "image_size")


@dataclass(frozen=True)
class GridConfig:
    """Train and test every method on every protocol, one folder a cell; run again, it goes on where it stopped."""

    out: str = "runs/grid"
    """Folder of the cells and of the table."""
    preset: str = "paper"
    """Settings of train that all cells share."""
    data: str = ""
    """Any one set instead of the paper's: its own classes, conventional, with the settings of preset quick."""
    mini: str = "folder:mini-imagenet"
    """miniImageNet: folder:PATH with subfolders train, val and test."""
    cub: str = "folder:CUB_200_2011/images"
    """CUB-200-2011: folder:PATH of its classes."""
    sun: str = "folder:sun-attribute"
    """SUN Attribute: folder:PATH with subfolders train, val and test."""
    methods: tuple[str, ...] = METHODS
    """Which methods."""
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """Which protocols of the paper: mini, cub, sun, mini-cub, mini-sun, cub-mini."""
    shots: tuple[int, ...] = (1, 5)
    """Support images a class."""
    seed: int = 0
    """Of training."""
    epochs: int = 0
    """Epochs of each cell; 0 is the preset's."""
    steps: int = 0
    """Steps an epoch; 0 is the preset's."""
    episodes: int = 600
    """Test tasks of each cell, the same for every method."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""
    progress: bool = True
    """Show bars on a terminal."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    dry_run: bool = False
    """Only list the cells and which are done."""

    def __post_init__(self) -> None:
        for kind, names, known in (("method", self.methods, METHODS), ("protocol", self.protocols, PROTOCOLS)):
            for name in names:
                if name not in known:
                    raise unknown_name(kind, name, known)
        if self.preset not in TrainConfig.PRESETS:
            raise unknown_name("preset", self.preset, TrainConfig.PRESETS)
        if not self.shots or min(self.shots) < 1:
            raise UserError(f"shots must be positive, got {self.shots}")
