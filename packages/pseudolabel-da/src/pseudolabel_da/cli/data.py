"""The data of a run: what is trained on, and, kept apart from it, what is only reported on."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core.data import DomainPair, ImageSet, domain_options, load_domains, long_tail, split_labelled, subset
from robustvision_core.errors import UserError
from robustvision_core.predict import Preprocessing
from torch import Tensor

from pseudolabel_da.algorithm.state import Domains
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.reading.samples import TensorSamples, as_samples, joined
from pseudolabel_da.selection.checks import parse_prior

COLOURED = ("mnist-mnistm", "fashion-fashionm")


@dataclass(frozen=True)
class AdaptationData:
    """A domain pair, dealt out.

    Attributes:
        labelled: Source samples, then the labelled target samples: what has labels in training.
        own: Number of the former.
        extra: Number of the latter.
        val: Labelled source samples to validate on.
        target: Unlabelled target samples; they hold no labels.
        truth: (N,) labels of those, for the records alone, or None where nobody knows them.
        source_test: To report on.
        target_test: To report on, or None where the target has no labels.
        ids: (N,) numbers of the target samples in their data set.
        files: The files that these count, or none.
    """

    labelled: TensorSamples
    own: int
    extra: int
    val: TensorSamples
    target: TensorSamples
    truth: Tensor | None
    source_test: ImageSet
    target_test: ImageSet | None
    ids: Tensor
    files: tuple[pathlib.Path, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.source_test.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.source_test.shape

    @property
    def preprocessing(self) -> Preprocessing:
        """From images of any size to what the network takes: bytes are mapped to [-1, 1]."""
        half = torch.full((self.shape[0],), 0.5)
        return Preprocessing.of(self.shape, half, half)

    @property
    def tests(self) -> dict[str, ImageSet]:
        """The test sets by domain."""
        target = {} if self.target_test is None else {"target": self.target_test}
        return {"source": self.source_test} | target

    def file(self, row: int) -> str:
        """What to call a target sample: its file, or its data set and number."""
        number = int(self.ids[row])
        return str(self.files[number]) if self.files else f"target/{number}"

    @property
    def domains(self) -> Domains:
        """What is trained on, as the library has it."""
        return Domains(
            self.labelled, self.own, self.extra, self.val, self.target, truth=self.truth, names=tuple(self.classes)
        )


def load(config: TrainConfig, device: torch.device | str = "cpu") -> AdaptationData:
    """The data that `config` asks for, on a device."""
    return deal(config, load_pair(config), device)


def load_pair(config: TrainConfig) -> DomainPair:
    """The domain pair that `config` names."""
    options: dict[str, Any] = {"seed": config.domains.data_seed}
    known = domain_options(config.data)
    options["image_size" if "image_size" in known else "size"] = config.domains.image_size
    if config.data in COLOURED:
        options["protocol"] = config.domains.protocol
    return load_domains(config.data, config.data_root or None, config.download, **options)


def deal(config: TrainConfig, pair: DomainPair, device: torch.device | str = "cpu") -> AdaptationData:
    """The parts of `pair` that a run uses.

    Raises:
        UserError: More samples are asked for than there are, all of the target would be labelled, labels are asked of a
            target that has none, or the prior is of another number of classes.
    """
    _check_prior(config, pair.source_test.num_classes)
    _check_labelled(config, pair)
    target, domains = pair.target_train, config.domains
    if domains.target_imbalance > 1:
        target = long_tail(target, domains.target_imbalance)
    target = _cut(target, domains.target_size, domains.data_seed)
    if config.method == "target":
        source, val = target, pair.target_val
        labelled, rest = target.take([]), target
    else:
        source, val = _cut(pair.source_train, domains.source_size, domains.data_seed), pair.source_val
        amount = domains.labelled if domains.labelled < 1 else int(domains.labelled)
        labelled, rest = split_labelled(target, amount, seed=domains.data_seed)
    if len(rest) < 2:
        remedy = "lower it" if domains.labelled else "give two target images or more"
        raise UserError(f"labelled {domains.labelled:g} leaves {len(rest)} unlabelled target samples: {remedy}")
    samples = joined(as_samples(source, device), as_samples(labelled, device))
    assert isinstance(samples, TensorSamples)  # both are tensors of one shape
    return AdaptationData(
        labelled=samples,
        own=len(source),
        extra=len(labelled),
        val=TensorSamples(val.images.to(device), val.labels.to(device)),
        target=TensorSamples(rest.images.to(device)),
        truth=rest.labels.to(device) if pair.target_labelled else None,
        source_test=pair.source_test,
        target_test=pair.target_test if pair.target_labelled else None,
        ids=rest.ids.cpu(),
        files=pair.target_files,
    )


def _check_labelled(config: TrainConfig, pair: DomainPair) -> None:
    domains = config.domains
    asked = {
        "--method target": config.method == "target",
        "--labelled": domains.labelled > 0,
        "--target-imbalance": domains.target_imbalance > 1,
    }
    wanted = next((name for name, given in asked.items() if given), None)
    if wanted is not None and not pair.target_labelled:
        raise UserError(f"{wanted} needs labels of the target: put its images into a folder for each class")


def _check_prior(config: TrainConfig, classes: int) -> None:
    selects = config.method == "pseudo" and config.selection.selector == "balanced"
    prior = parse_prior(config.selection.prior) if selects else None
    if prior is not None and not isinstance(prior, str) and len(prior) != classes:
        raise UserError(f"prior has {len(prior)} shares, {config.data} has {classes} classes: give one each")


def _cut(data: ImageSet, size: int, seed: int) -> ImageSet:
    """`size` samples, or all for 0; not by class, which would take the target's labels."""
    if size > len(data):
        raise UserError(f"{data.name} has {len(data)} samples, {size} were asked for")
    return subset(data, size, seed, stratified=False) if size else data
