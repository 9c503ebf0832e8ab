"""How a warm-up counts, in loops and trainers of others."""

from __future__ import annotations

import sys
import types
import warnings

import pytest
import torch
from fdiv_noisy import (
    MAELoss,
    WarmUp,
    hf_callback,
    lightning_callback,
)
from test_edges import Model, batch
from torch import nn
from torch.nn.functional import cross_entropy


def test_warm_up_ends_by_itself() -> None:
    logits, targets = batch()
    logits.requires_grad_()
    ce, mae = cross_entropy(logits, targets), MAELoss()(logits, targets)

    def losses(criterion: WarmUp, calls: int) -> list[bool]:
        return [torch.equal(criterion(logits, targets), mae) for _ in range(calls)]

    assert losses(WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=3), 5) == [False] * 3 + [True] * 2
    # half an epoch of 24 labels in batches of 6
    assert losses(WarmUp(nn.CrossEntropyLoss(), MAELoss(), epochs=0.5, samples=24), 4) == [False] * 2 + [True] * 2
    assert losses(WarmUp(nn.CrossEntropyLoss(), MAELoss(), epochs=0), 1) == [True]
    told = WarmUp(nn.CrossEntropyLoss(), MAELoss(), epochs=1, samples=6)
    told.set_epoch(0)
    assert losses(told, 3) == [False] * 3
    told.set_epoch(1)
    assert losses(told, 1) == [True]
    assert not torch.equal(ce, mae)


def test_warm_up_counts_training_only() -> None:
    logits, targets = batch()
    criterion = WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=2)
    criterion.eval()
    criterion(logits, targets)
    criterion.train()
    with torch.no_grad():
        criterion(logits, targets)
    assert criterion.calls == 0
    criterion(logits, targets)
    assert criterion.warming
    criterion(logits, targets)
    assert not criterion.warming


def test_warm_up_says_so_where_it_does_not_know_what_an_epoch_is() -> None:
    logits, targets = batch()
    criterion = WarmUp(nn.CrossEntropyLoss(), MAELoss(), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(999):
            criterion(logits, targets)
    with pytest.warns(UserWarning, match="call set_epoch before each epoch, or give samples="):
        criterion(logits, targets)
    assert torch.equal(criterion(logits, targets), MAELoss()(logits, targets))


def test_warm_up_goes_on_counting_from_a_checkpoint() -> None:
    first = WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=3)
    for _ in range(2):
        first(*batch())
    state = first.state_dict()
    second = WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=3)
    second.load_state_dict(state)
    assert second.calls == 2
    second(*batch())
    assert not second.warming
    third = WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=3)
    third.load_state_dict(second.state_dict())
    assert not third.warming
    third.load_state_dict({})  # a checkpoint from before anything was counted
    assert third.calls == 3


def test_warm_up_compiles_once_for_each_loss() -> None:
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    logits, targets = batch()
    criterion = WarmUp(nn.CrossEntropyLoss(), MAELoss(), steps=12)
    compiled = torch.compile(criterion, backend=backend)
    values = [compiled(logits, targets) for _ in range(15)]
    ce, mae = cross_entropy(logits, targets), MAELoss()(logits, targets)
    assert [bool(torch.isclose(value, mae)) for value in values] == [False] * 12 + [True] * 3
    assert not torch.isclose(ce, mae)
    assert len(graphs) == 2


class FakeTrainer:
    current_epoch = 3


class FakeState:
    epoch = 2.9999999999


def test_callbacks_say_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    lightning, transformers = types.ModuleType("lightning.pytorch"), types.ModuleType("transformers")
    lightning.__dict__["Callback"] = transformers.__dict__["TrainerCallback"] = object
    for name, module in (("lightning", types.ModuleType("lightning")), ("lightning.pytorch", lightning)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    criterion = WarmUp(nn.CrossEntropyLoss(), MAELoss(), epochs=3)
    lightning_callback().on_train_epoch_start(FakeTrainer(), Model(criterion))
    assert (criterion.epoch, criterion.warming) == (3, False)
    criterion.set_epoch(0)
    lightning_callback(criterion).on_train_epoch_start(FakeTrainer(), nn.Linear(1, 1))
    assert criterion.epoch == 3
    hf_callback(nn.ModuleList([criterion])).on_epoch_begin(None, FakeState(), None)
    assert criterion.epoch == 3


def test_warm_up_takes_one_length() -> None:
    for wrong in ({}, {"epochs": 1, "steps": 3}):
        with pytest.raises(ValueError, match="takes epochs or steps"):
            WarmUp(MAELoss(), MAELoss(), **wrong)
    with pytest.raises(ValueError, match="steps must be >= 0"):
        WarmUp(MAELoss(), MAELoss(), steps=-1)
