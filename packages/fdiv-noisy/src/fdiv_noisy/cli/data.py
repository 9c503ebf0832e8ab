"""A data set with noisy training labels, as a configuration describes it."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace

import torch
from robustvision_core import data
from robustvision_core.data import ImageFiles, ImageSet
from robustvision_core.errors import DataError, UserError, unknown_name
from robustvision_core.run.runtime import derive_seed
from torch import Tensor

from fdiv_noisy import noise
from fdiv_noisy.cli.names import LEVELS, NOISES
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.transition import Transition, as_matrix

# folder and file prefix of the label files published with the paper
PUBLISHED = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("Fashion_MNIST", "Fashion"),
    "cifar-10": ("CIFAR-10", "CIFAR10"),
    "cifar-100": ("CIFAR-100", "CIFAR100"),
}
CIFAR100_LEVELS = {"r0_3": "random-low", "r0_4": "random-high"}  # its other files were drawn at random


Images = ImageSet | ImageFiles
"""In memory, or a list of files that are decoded as they are needed."""


@dataclass(frozen=True)
class NoisySet:
    """What one run trains, selects and is tested on.

    Attributes:
        train: Training images with noisy labels.
        val: Validation set: training images that are kept back, with noisy labels; None without one.
        test: Test images with clean labels.
        clean: (N,) clean labels of `train`, for reports only; None where nobody knows them.
    """

    train: Images
    val: Images | None
    test: Images
    clean: Tensor | None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.train.classes)

    @property
    def wrong_labels(self) -> float | None:
        """Share of wrong training labels, where it is known."""
        return None if self.clean is None else float((self.train.labels != self.clean).float().mean())

    def in_memory(self) -> ImageSet:
        """The training images as tensors, which examining their labels needs.

        Raises:
            UserError: They are files.
        """
        if isinstance(self.train, ImageFiles):
            raise UserError("finding the noise needs the images in memory: leave --stream away, or name --loss")
        return self.train


def load(config: TrainConfig) -> NoisySet:
    """The data that `config` asks for.

    Raises:
        UserError: The data, noise or sizes cannot be had; the message says why.
    """
    if config.stream:
        return _stream(config)
    whole, test = data.train_and_test(lambda part: clean_images(config, part))
    noisy = whole.with_labels(noisy_labels(config, whole))
    held = config.val_size
    size = config.train_size or len(whole) - held
    if size < 1 or size + held > len(whole):
        raise UserError(
            f"{config.data} has {len(whole)} training samples: train_size {config.train_size} and val_size {held} "
            "do not fit"
        )
    rows = torch.arange(len(whole))
    if ":" in config.data:  # it may be sorted by class; by its own labels, so that every noise has the same split
        own, other = (part.ids for part in data.split(replace(whole, ids=rows), [size, held], seed=config.noise_seed))
    else:
        own, other = rows[:size], rows[len(rows) - held :]
    known = config.noise != "none" or not data.in_files(config.data)
    return NoisySet(noisy.take(own), noisy.take(other) if held else None, test, whole.labels[own] if known else None)


def clean_images(config: TrainConfig, part: str) -> ImageSet:
    """The `part` (train or test) of the data that `config` names, at its image size and with its own labels."""
    sized = "size" if config.data == "digits" else "image_size"
    options = {sized: config.image_size} if sized in data.options_of(config.data) else {}
    return data.load(config.data, part, config.data_root or None, config.download, **options)


def _stream(config: TrainConfig) -> NoisySet:
    if not data.in_files(config.data) or config.noise != "none" or config.train_size:
        raise UserError("--stream reads folder:PATH and other files as they are: --noise none and no --train-size")
    root = config.data_root or None
    val = data.list_files(config.data, "val", root) if config.val_size else None
    return NoisySet(data.list_files(config.data, "train", root), val, data.list_files(config.data, "test", root), None)


def noisy_labels(config: TrainConfig, clean: ImageSet) -> Tensor:
    """Labels (N,) of the whole training set under the noise of `config`."""
    kind, _, argument = config.noise.partition(":")
    if kind not in NOISES:
        raise unknown_name("noise", config.noise, NOISES)
    if argument and (kind == "none" or kind in LEVELS):
        raise UserError(f"--noise {config.noise}: {kind} takes no argument; uniform:RATE and others take a rate")
    if kind == "none":
        return clean.labels
    if kind in ("published", "file"):
        return _from_file(config, kind, argument, clean)
    generator = torch.Generator().manual_seed(derive_seed(config.noise_seed, "noise"))
    k = clean.num_classes
    if k < 2:
        raise UserError(f"--noise {config.noise}: {config.data} has one class, and a wrong label needs another")
    try:
        if kind == "instance":
            features = clean.images.flatten(1).float() / 255
            return noise.instance_dependent(features, clean.labels, _rate(kind, argument), k, generator=generator)
        return noise.corrupt(clean.labels, _model(kind, argument, config.data, k), generator=generator)
    except ValueError as error:
        raise UserError(f"--noise {config.noise}: {error}") from error


def _model(kind: str, argument: str, name: str, num_classes: int) -> Transition:
    if kind in LEVELS:  # a set that the paper has no noise for takes that of MNIST
        level = noise.preset(kind, name if name in PUBLISHED else "mnist")
        if len(as_matrix(level)) != num_classes:
            raise ValueError(f"this level is of {len(as_matrix(level))} classes, and {name} has {num_classes}")
        return level
    rate = _rate(kind, argument)
    if kind == "uniform":
        return noise.uniform(torch.full((num_classes,), rate / (num_classes - 1)))
    if kind == "random":
        return noise.random(rate, num_classes)
    if kind == "asymmetric":
        if name != "cifar-10":
            raise ValueError(f"it is between classes of cifar-10, not of {name}")
        return noise.cifar10_asymmetric(rate)
    return noise.pair_flip(rate, num_classes)


def _rate(kind: str, argument: str) -> float:
    if not argument:
        raise ValueError(f"it needs a rate, as in {kind}:0.4")
    return float(argument)


def _from_file(config: TrainConfig, kind: str, argument: str, clean: ImageSet) -> Tensor:
    path, _, key = argument.partition(":")
    if kind == "published":
        if config.data not in PUBLISHED:
            raise UserError(f"no noise was published for {config.data}: known: {', '.join(PUBLISHED)}")
        folder, prefix = PUBLISHED[config.data]
        path = str(data.data_root(config.data_root) / "noise-labels" / "fdiv" / folder / f"{prefix}_noise_{path}.pt")
    if not pathlib.Path(path).is_file():
        raise DataError(f"--noise {config.noise}: no file {path}{_drawn_instead(config, kind, argument)}")
    try:
        labels = noise.load_labels(path, key or None)
    except ValueError as error:
        raise DataError(str(error)) from error
    if len(labels) != len(clean):
        raise DataError(f"{path} holds {len(labels)} labels, {config.data} has {len(clean)} training samples")
    return replace(clean, labels=labels, name=path).labels  # checks the range


def _drawn_instead(config: TrainConfig, kind: str, name: str) -> str:
    """The level that a published file holds, for the error where there is no file."""
    if kind != "published":
        return ""
    levels = CIFAR100_LEVELS
    if config.data != "cifar-100":
        levels = {f"r0_{number}": level for number, level in enumerate(LEVELS, 1)}
    drawn = f", or use --noise {levels[name]}, the same model drawn here" if name in levels else ""
    return f": put the published file there (see the README){drawn}"
