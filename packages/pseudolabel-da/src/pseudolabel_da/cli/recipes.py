"""Configurations of training by name. Imports nothing heavy, so that their help is there at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal

from robustvision_core.config import former_names, leaf_types
from robustvision_core.errors import UserError
from robustvision_core.networks.names import check_network, is_external
from robustvision_core.run.options import Checks, RunOptions

from pseudolabel_da.algorithm.presets import PRESETS
from pseudolabel_da.algorithm.settings import (
    ALONE,
    VALIDATORS,
    Checkpoint,
    CoralOptions,
    LeeOptions,
    Method,
    SelectionOptions,
    Settings,
    TrainingOptions,
)

NETWORKS = ("cnn", "resnet18")


@dataclass(frozen=True)
class DomainOptions(Checks):
    """How the two domains are read and cut."""

    protocol: Literal["disjoint", "canonical", "pooled"] = "disjoint"
    """Of mnist-mnistm and fashion-fashionm: disjoint shows no digit in both domains; canonical is the literature's,
    where every target image has its twin in the source; pooled is the published experiments', which leak."""
    image_size: int = 28
    """Side in pixels that images are loaded at."""
    data_seed: int = 0
    """Of the halves, cuts and subsets; apart from the seed, so that runs of several seeds share their data."""
    source_size: int = 0
    """So many labelled source samples; 0 takes all."""
    target_size: int = 0
    """So many unlabelled target samples; 0 takes all."""
    target_imbalance: float = 1.0
    """Size of the largest target class over that of the smallest, made by leaving samples out."""
    labelled: float = 0.0
    """Labelled target samples: below 1 a share of every class, from 1 on so many of each class."""

    def __post_init__(self) -> None:
        self.at_least(1, "image_size", "target_imbalance")
        self.at_least(0, "source_size", "target_size", "labelled")
        if self.labelled > 1 and self.labelled != int(self.labelled):
            raise UserError(f"labelled must be a share below 1 or a whole number, got {self.labelled}")


def part(whole: Settings, kind: type) -> Any:
    """The options of one part of `whole`."""
    return kind(**{field.name: getattr(whole, field.name) for field in fields(kind)})


DOMAINS, CORAL, LEE = DomainOptions(), CoralOptions(), LeeOptions()
SELECTION = replace(part(PRESETS["balanced"], SelectionOptions), period=1, shares=SelectionOptions().shares)
TRAINING = replace(part(PRESETS["balanced"], TrainingOptions), lr=1e-3, anneal=False, replay_share=1.0)


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a classifier on a labelled source and adapt it to a target; target labels only ever reach the records."""

    preset: str = "quick"
    """Which defaults the other options change: see the README for the list."""
    data: str = "digits-shift"
    """Domain pair: digits-shift (offline), mnist-mnistm, fashion-fashionm, mnist-usps, usps-mnist, svhn-mnist, or
    folder:PATH:SOURCE:TARGET, of PATH/DOMAIN/<class>/<image>, or folder:SOURCE:TARGET with a path for each. The images
    of TARGET may lie flat, without labels. Or any two image sets of the same classes, as csv:a.csv,csv:b.csv."""
    method: Method = "pseudo"
    """source alone, target (its labels, the upper bound), coral, dann, lee (2013), pseudo (this paper's algorithm,
    with a selector), or ican's selection."""
    network: str = "cnn"
    """cnn (three convolutions, about 30,000 parameters), resnet18 (a ResNet-18 for small images), timm:NAME or
    torchvision:NAME, which see images normalised as their weights know them."""
    weights: str = ""
    """A file of weights that the network of timm or torchvision starts from; its head is replaced where it is of other
    classes."""
    standardise: bool = False
    """Of cnn and resnet18: every image is brought to mean 0 and standard deviation 1 in the network, so that brightness
    and contrast of a domain do not reach it."""
    init: str = ""
    """Start from the weights of this checkpoint of a run of ours."""
    pretrain: int = 3
    """Epochs on labelled samples alone."""
    epochs: int = 5
    """Epochs of adaptation after those; source and target have none. A run may be resumed with more; the weights of lee
    and dann, which grow over the whole, then go back to their place in the longer one."""
    checkpoint: Checkpoint = "last"
    """The epoch of adaptation that is kept: the last, or the best by source accuracy, information maximisation (im),
    soft neighbourhood density (snd) or entropy. The target's test set never chooses."""
    domains: DomainOptions = DOMAINS
    """The data."""
    selection: SelectionOptions = SELECTION
    """The pseudo-labels."""
    training: TrainingOptions = TRAINING
    """The steps."""
    coral: CoralOptions = CORAL
    """Method coral."""
    lee: LeeOptions = LEE
    """Method lee."""

    PRESETS: ClassVar[dict[str, TrainConfig]]
    ALIASES: ClassVar[dict[str, str]] = {"select": "checkpoint"} | {
        field.name: f"{group}.{field.name}"
        for group, kind in (("domains", DomainOptions), ("selection", SelectionOptions), ("training", TrainingOptions))
        for field in fields(kind)
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "pretrain", "epochs")
        self._check_network()
        if self.pretrain + self.adaptation < 1:
            raise UserError(f"nothing to train: method {self.method} has pretrain 0 and epochs {self.epochs}")
        try:
            self.settings()
        except ValueError as error:
            raise UserError(str(error)) from error

    def _check_network(self) -> None:
        check_network(self.network, NETWORKS, self.weights, "starts from --init")
        if self.standardise and is_external(self.network):
            raise UserError(f"--standardise is for cnn and resnet18; {self.network} has its own normalisation")

    @property
    def adaptation(self) -> int:
        """Epochs of adaptation that the method has."""
        return 0 if self.method in ALONE else self.epochs

    def settings(self) -> Settings:
        """The options of the algorithm, for the library."""
        own = {f.name: getattr(held, f.name) for held in (self.selection, self.training) for f in fields(held)}
        checkpoint = VALIDATORS.get(self.checkpoint, self.checkpoint)
        return Settings(
            **own, method=self.method, coral=self.coral, lee=self.lee, checkpoint=checkpoint, seed=self.seed
        )

    def flat(self) -> dict[str, Any]:
        """Every option by its short name."""
        shorter = {path: name for name, path in former_names(type(self)).items() if name != "select"}
        return {shorter.get(path, path.replace(".", "_")): value for path, value in _leaves(self)}

    def changed(self, **options: Any) -> TrainConfig:
        """This configuration with other options, by their short names: `changed(period=2, coral_weight=0.5)`.

        Raises:
            TypeError: There is no option of that name.
            UserError: A value is refused.
        """
        paths = {path.replace(".", "_"): path for path in leaf_types(type(self))} | former_names(type(self))
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            group, dot, leaf = paths.get(name, name).rpartition(".")
            groups.setdefault(group if dot else "", {})[leaf] = value
        top = groups.pop("", {})
        return replace(self, **top, **{name: replace(getattr(self, name), **own) for name, own in groups.items()})


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def recipe(name: str, **options: Any) -> TrainConfig:
    """The command's configuration of a recipe of the library, with other options."""
    held = PRESETS[name]
    made = TrainConfig(
        preset=name,
        checkpoint=held.checkpoint,
        selection=part(held, SelectionOptions),
        training=part(held, TrainingOptions),
    )
    return made.changed(**options)


# the balanced recipe for a set of 613 images a domain, at its pace
_QUICK = recipe(
    "balanced",
    preset="quick",
    shares=SELECTION.shares,
    pretrain=20,
    epochs=15,
    period=3,
    batch_size=32,
    lr=1e-3,
    anneal=False,
    replay_share=1.0,
)
TrainConfig.PRESETS = {
    "quick": _QUICK,
    # a few seconds, to see that all is in place
    "smoke": _QUICK.changed(
        preset="smoke", source_size=128, target_size=128, image_size=16, pretrain=2, epochs=2, period=1
    ),
    # what was measured best
    "balanced": recipe("balanced", data="mnist-mnistm", protocol="canonical", pretrain=1, epochs=10),
    # the text of the paper for MNIST; see `pseudolabel_da.algorithm.presets` for where its sources disagree. Of
    # Algorithm 1, line 1, which trains on the source until validation accuracy stops to rise, the first phase has ten
    # epochs and keeps the last
    "paper": recipe("paper", data="mnist-mnistm", protocol="canonical", pretrain=10, epochs=160),
    # what the published code does
    "official": recipe("official", data="mnist-mnistm", protocol="pooled", pretrain=1, epochs=160),
}
