"""What options mean to each method, in the entry point, and the kinds of data that the library takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.algorithm.fetching import StepBatch
from pseudolabel_da.cli.data import AdaptationData, deal, load_pair
from pseudolabel_da.cli.phases import Phases
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import make_step
from pseudolabel_da.cli.testing import make_classifier
from pseudolabel_da.reading.samples import TensorSamples, as_samples
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

QUICK = TrainConfig.PRESETS["quick"]
SMALL = {"source_size": 64, "target_size": 64, "image_size": 16, "batch_size": 16, "pretrain": 1, "epochs": 1}


@pytest.fixture(scope="module")
def pair() -> Any:
    return load_pair(QUICK.changed(image_size=16))


def begun(pair: Any, **changes: Any) -> tuple[Phases, AdaptationData]:
    config = QUICK.changed(device="cpu", **SMALL | changes)
    data = deal(config, pair)
    step = make_step(config, make_classifier(config, data).network, len(data.target), 10)
    return Phases(config, data, step, torch.optim.AdamW(step.parameters()), Runtime(torch.device("cpu"))), data


def adapting_batches(pair: Any, **changes: Any) -> tuple[list[StepBatch], AdaptationData]:
    phases, data = begun(pair, period=1, pretrain=0, **changes)
    phases.begin(0)
    return list(phases.epoch(0)), data


def plain(images: Tensor, stored: Tensor) -> bool:
    """Whether all images are stored ones as they are."""
    scaled = {tuple(image.flatten().tolist()) for image in stored.float() / 127.5 - 1}
    return all(tuple(image.flatten().tolist()) in scaled for image in images)


def test_source_alone_has_not_seen_the_target(pair: Any) -> None:
    """Its statistics after the last epoch are those of training, though the preset's are the target's."""
    phases, _ = begun(pair, method="source")
    assert phases.config.training.batch_norm == "target"
    before = {name: value.clone() for name, value in phases.step.network.state_dict().items()}
    phases.begin(0)
    phases.validate()
    after = phases.step.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    other, _ = begun(pair, method="target")
    other.begin(0)
    other.validate()
    assert not all(torch.equal(value, other.step.network.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("method", ["coral", "dann", "lee"])
def test_transfer_augments_both_domains_or_none(pair: Any, method: str) -> None:
    batches, data = adapting_batches(pair, method=method)
    assert QUICK.training.augment == "strong"
    assert all(b.target is not None and plain(b.target.inputs, data.target.inputs) for b in batches)
    assert all(b.source is not None and plain(b.source.inputs, data.labelled.inputs) for b in batches)
    batches, data = adapting_batches(pair, method=method, source_augment="jitter")
    assert not any(b.target is not None and plain(b.target.inputs, data.target.inputs) for b in batches)
    assert not any(b.source is not None and plain(b.source.inputs, data.labelled.inputs) for b in batches)


def test_pseudo_labels_have_an_augmentation_of_their_own(pair: Any) -> None:
    batches, data = adapting_batches(pair, shares=(1.0,))
    assert not any(b.target is not None and plain(b.target.inputs, data.target.inputs) for b in batches)
    assert all(b.source is not None and plain(b.source.inputs, data.labelled.inputs) for b in batches)


X, Y = torch.randn(12, 5), torch.arange(12) % 3


@pytest.mark.parametrize(
    "data",
    [
        (X, Y.int()),
        (X, Y.tolist()),
        (X, tuple(Y.tolist())),
        (X.numpy(), Y.numpy()),
        (X.numpy(), Y.numpy().astype(np.int32)),
        (X.numpy(), Y.numpy().astype(np.uint8)),
        [X.numpy(), Y],
        [(x, y) for x, y in zip(X, Y.numpy().astype(np.int32), strict=True)],
    ],
    ids=["int32", "list", "tuple", "arrays", "int32 array", "uint8 array", "mixed", "dataset of int32"],
)
def test_pairs_of_arrays_are_inputs_and_labels(data: Any) -> None:
    samples = as_samples(data)
    assert len(samples) == 12
    inputs, labels = next(samples.stream([torch.tensor([3, 7])]))
    assert torch.equal(inputs, X[[3, 7]])
    assert labels is not None
    assert labels.dtype == torch.int64
    assert labels.tolist() == Y[[3, 7]].tolist()


@pytest.mark.parametrize("inputs", [X, X.numpy()], ids=["tensor", "array"])
def test_pairs_may_have_no_labels(inputs: Any) -> None:
    samples = as_samples((inputs, None))
    assert isinstance(samples, TensorSamples)
    assert (len(samples), samples.labels) == (12, None)


def test_labels_that_are_names_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot make a tensor of the labels"):
        as_samples((X, ["cat"] * 12))


@pytest.mark.parametrize("held", [X, (X, None), list(X)], ids=["tensor", "pair", "dataset"])
def test_validation_data_without_labels_are_refused_by_name(held: Any) -> None:
    labeler = pl.IncrementalPseudoLabeler(nn.Linear(5, 3))
    with pytest.raises(ValueError, match="source_val has no labels"):
        labeler.pretrain((X, Y), held, epochs=1)
    with pytest.raises(ValueError, match="source_val has no labels"):
        labeler.fit((X, Y), held, X, epochs=1)
