"""The configuration of training."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.networks.names import check_network
from robustvision_core.run.options import RunOptions

from flowaug.cli.recipes.groups import (
    ControllerOptions,
    FlowOptions,
    ImageOptions,
    ObjectiveOptions,
    OptimizerOptions,
    SpaceOptions,
)

AUGMENTERS = ("flow", "augerino", "instaaug", "instaaug-lrp", "pstn", "randaugment", "trivialaugment", "none")
"""What `--augmenter` takes."""

FIXED = ("randaugment", "trivialaugment", "none")
"""The augmenters that learn nothing; predictions see the images as they are."""

NETWORKS = ("fixup_resnet8", "layer13", "lenet", "mlp", "preact_resnet18", "simple_conv", "simple_conv8")
"""What `--network` takes: the names of `flowaug.networks.NETWORKS`, here without its import of torch."""

GROUPS = {
    "images": ("degrees", "modes", "rho", "train_size", "val_size"),
    "space": ("dims", "trans_scale", "linear_scale", "padding"),
    "flow": ("layers", "width", "components", "base", "start_scale", "spread", "gradient", "phase"),
    "objective": (
        "alpha",
        "penalty",
        "views",
        "test_views",
        "aggregate",
        "include_original",
        "burn_in",
        "freeze_after",
    ),
    "controller": ("entropy", "alpha_limits"),
    "optimizer": ("lr", "lr_aug", "lr_end", "lr_steps", "schedule_aug", "momentum", "weight_decay"),
}
"""Options that are known by their own name too, by the group they are in."""


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a classifier together with a distribution of augmentations for every image."""

    preset: str = "quick"
    """Which defaults the other options change: see the README for the list. Its --images options hold for its own data
    set alone."""
    data: str = "sprites"
    """Data set: sprites, digits, mnist, fashion-mnist, mnist-01569, rot-mnist-lt, cifar-10, cifar-10-lt, cifar-100,
    tiny-imagenet, npz:PATH, or your images as folder:PATH, csv:PATH, parquet:PATH, hf:PATH, webdataset:PATH."""
    augmenter: str = "flow"
    """flow, augerino, instaaug, instaaug-lrp, pstn, randaugment, trivialaugment or none."""
    network: str = "simple_conv8"
    """Classifier: simple_conv, simple_conv8, mlp, lenet, fixup_resnet8, layer13, preact_resnet18, timm:NAME or
    torchvision:NAME."""
    weights: str = ""
    """A file of weights that a network of timm or torchvision starts from, with that network's normalisation."""
    epochs: int = 10
    """Passes over the training set."""
    batch_size: int = 128
    """Samples a step, all processes together."""
    images: ImageOptions = field(default_factory=ImageOptions)
    space: SpaceOptions = field(default_factory=SpaceOptions)
    flow: FlowOptions = field(default_factory=FlowOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    controller: ControllerOptions = field(default_factory=ControllerOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)

    PRESETS: ClassVar[dict[str, TrainConfig]]
    PRESET_IMAGES: ClassVar[dict[str, ImageOptions]]
    """The --images options of the presets, each for its preset's data set."""

    ALIASES: ClassVar[dict[str, str]] = {
        name: f"{group}.{name}" for group, names in GROUPS.items() for name in names
    } | {
        "image_size": "images.size",
        "space": "space.kind",
        "controller": "controller.kind",
        "optimizer": "optimizer.kind",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmenter not in AUGMENTERS:
            raise unknown_name("augmenter", self.augmenter, AUGMENTERS)
        check_network(self.network, NETWORKS, self.weights)
        if self.augmenter == "instaaug-lrp" and self.space.kind != "crop":
            raise UserError("instaaug-lrp chooses among crops: add --space crop")
        self.at_least(1, "epochs", "batch_size")
        if self.learns and self.objective.burn_in >= self.epochs:
            raise UserError(
                f"the augmenter would never train: burn_in {self.objective.burn_in} must be below epochs {self.epochs}"
            )

    @property
    def learns(self) -> bool:
        """Whether the augmenter is learned."""
        return self.augmenter not in FIXED

    def changed(self, **values: Any) -> TrainConfig:
        """A copy with other values of options, by their short names: `changed(epochs=3, alpha=0.1, space="crop")`.

        Raises:
            TypeError: There is no such option.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            group, _, field = self.ALIASES.get(name, name).rpartition(".")
            groups.setdefault(group, {})[field] = value
        parts = {group: replace(getattr(self, group), **own) for group, own in groups.items() if group}
        return replace(self, **groups.get("", {}), **parts)

    def settled(self) -> TrainConfig:
        """A copy whose `images` leave nothing to the preset: its own options where the data set is its own."""
        preset = self.PRESETS.get(self.preset)
        own = self.PRESET_IMAGES.get(self.preset) if preset is not None and preset.data == self.data else None
        sizes = {"train_size": 0, "val_size": 0}
        parts = [vars(part) for part in (own, self.images) if part is not None]
        chosen = {name: value for part in parts for name, value in part.items() if value is not None}
        return replace(self, images=ImageOptions(**(sizes | chosen)))

    def as_begun(self) -> TrainConfig:
        """A copy with the former phase where the run to go on with was begun before there was a choice."""
        former = self.resume and _began_before_phases(pathlib.Path(self.out))
        return self.changed(phase="linear") if former else self


def _began_before_phases(folder: pathlib.Path) -> bool:
    """Whether a folder holds a run whose configuration names no phase. What cannot be read is left to who reads it."""
    try:
        held = json.loads((folder / "config.json").read_text())
        return "phase" not in held.get("flow", held)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False
