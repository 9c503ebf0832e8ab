"""The loop in two processes."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import pytest
import torch
from robustvision_core.errors import CheckpointError
from robustvision_core.run.folder import Run, load_checkpoint, save_checkpoint
from robustvision_core.run.loop import Interrupted, fit
from robustvision_core.run.runtime import Runtime, unwrap
from test_loop import CONFIG, Numbers, Step, same, without_time
from torch import Tensor, nn


def train_on_rank(runtime: Runtime, folder: str, epochs: int, resume: bool) -> tuple[dict[str, Tensor], list[dict]]:
    torch.manual_seed(5)
    core = Step(dropout=0.0)
    core.network[1] = nn.Identity()  # batch statistics differ by process; gradients must not
    step = runtime.wrap(core)
    optimizer = torch.optim.SGD(step.parameters(), 0.02, momentum=0.9)
    run = Run(folder, CONFIG, resume=resume, writes=runtime.is_main)
    batches = Numbers(rank=runtime.rank, world_size=runtime.world_size)
    records = fit(step, optimizer, batches, epochs=epochs, runtime=runtime, run=run)
    return unwrap(step).state_dict(), records


def test_two_processes_train_as_one(two_ranks, tmp_path: pathlib.Path) -> None:
    with Runtime.session("cpu") as runtime:
        expected, expected_records = train_on_rank(runtime, str(tmp_path / "one"), 3, False)
    ranks = two_ranks(train_on_rank, str(tmp_path / "two"), 3, False)
    for state, _ in ranks:
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    for record, reference in zip(ranks[0][1], expected_records, strict=True):
        assert record["loss"] == pytest.approx(reference["loss"], rel=1e-5)
        assert record["absolute"] == pytest.approx(reference["absolute"], rel=1e-5)
    two_ranks(train_on_rank, str(tmp_path / "cut"), 1, False)
    resumed = two_ranks(train_on_rank, str(tmp_path / "cut"), 3, True)
    assert same(resumed[0][0], ranks[0][0])
    two_ranks(train_on_rank, str(tmp_path / "other"), 1, False)
    with Runtime.session("cpu") as runtime:  # between epochs one process goes on with what two began
        state, records = train_on_rank(runtime, str(tmp_path / "other"), 3, True)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    within = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    within["progress"]["batch"] = 3
    save_checkpoint(tmp_path / "cut" / "checkpoint.pt", within)
    with (
        pytest.raises(CheckpointError, match="within an epoch by 2 processes, this run has 1: resume with --devices 2"),
        Runtime.session("cpu") as runtime,
    ):
        train_on_rank(runtime, str(tmp_path / "cut"), 4, True)


def train_with_dropout(runtime: Runtime, folder: str, stop_at: int, resume: bool) -> tuple[Any, list[dict], Tensor]:
    """Dropout, whose generator differs by process; `stop_at` is the batch of epoch 1 before which it stops."""
    runtime.seed = 3
    torch.manual_seed(5)
    core = Step()
    core.network[1] = nn.Identity()
    step = runtime.wrap(core)
    torch.manual_seed(3 + runtime.rank)
    run = Run(folder, CONFIG, resume=resume, writes=runtime.is_main)
    batches = Numbers(120, runtime.rank, runtime.world_size)
    batches.stop_at = (1, stop_at)
    optimizer = torch.optim.SGD(step.parameters(), 0.02, momentum=0.9)
    records = []
    with contextlib.suppress(Interrupted):
        records = fit(step, optimizer, batches, epochs=2, runtime=runtime, run=run)
    return unwrap(step).state_dict(), records, torch.rand(3)


def test_two_processes_resume_within_an_epoch_as_if_never_stopped(two_ranks, tmp_path: pathlib.Path) -> None:
    whole = two_ranks(train_with_dropout, str(tmp_path / "whole"), -1, False)
    two_ranks(train_with_dropout, str(tmp_path / "cut"), 60, False)
    held = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert held["progress"]["batch"] == 100  # they agree on the next look
    assert not torch.equal(held["rng"][0]["torch"], held["rng"][1]["torch"])
    resumed = two_ranks(train_with_dropout, str(tmp_path / "cut"), -1, True)
    for (state, records, drawn), (expected, expected_records, expected_drawn) in zip(resumed, whole, strict=True):
        assert same(state, expected)
        assert without_time(records) == without_time(expected_records)
        assert torch.equal(drawn, expected_drawn)
    assert not torch.equal(whole[0][2], whole[1][2])


class Recorder(Run):
    """Notes at which batch the state was written."""

    def __init__(self, folder: str, writes: bool) -> None:
        super().__init__(folder, CONFIG, writes=writes)
        self.batches: list[int] = []

    def save(self, path: pathlib.Path, state: Any) -> None:
        self.batches.append(state["progress"]["batch"])
        super().save(path, state)


def saved_within_an_epoch(runtime: Runtime, folder: str) -> list[int]:
    step = runtime.wrap(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0), Mean()))
    run = Recorder(folder, runtime.is_main)
    batches = Numbers(rank=runtime.rank, world_size=runtime.world_size)
    batches.count = 120
    minutes = 0.0 if runtime.is_main else 1e9  # the other clock has no say
    optimizer = torch.optim.SGD(step.parameters(), 0.01)
    fit(step, optimizer, batches, epochs=1, runtime=runtime, run=run, checkpoint_minutes=minutes)
    return run.batches


class Mean(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.square().mean()


def test_two_processes_write_checkpoints_within_an_epoch(two_ranks, tmp_path: pathlib.Path) -> None:
    assert two_ranks(saved_within_an_epoch, str(tmp_path / "run")) == [[50, 100, 0], [50, 100, 0]]
