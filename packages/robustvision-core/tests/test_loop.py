"""The training loop: exact resume at any point, crashes, Ctrl-C, two processes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.run.folder import Run, load_checkpoint, read_config, read_metrics, save_checkpoint
from robustvision_core.run.loop import Interrupted, NonFiniteLossError, fit
from robustvision_core.run.runtime import Runtime, unwrap
from torch import Tensor, nn

CONFIG = {"lr": 0.1, "seed": 3}


class Numbers:
    """Regression batches that are a pure function of (epoch, number), cut among the processes."""

    def __init__(self, count: int = 7, rank: int = 0, world_size: int = 1) -> None:
        self.count, self.rank, self.world_size = count, rank, world_size
        self.stop_at: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        for number in range(start, self.count):
            if self.stop_at == (epoch, number):
                os.kill(os.getpid(), signal.SIGINT)
            generator = torch.Generator().manual_seed(1000 * epoch + number)
            batch = torch.randn(8, 4, generator=generator)
            yield batch.chunk(self.world_size)[self.rank]


class Step(nn.Module):
    """A network with dropout, so that resuming needs the state of the random generator."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1)
        )

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = self.network(batch)[:, 0] - batch.sum(1)
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}


def train(
    run: Run | None, epochs: int = 4, batches: Any = None, **options: Any
) -> tuple[dict[str, Tensor], list[dict]]:
    with Runtime.session("cpu", seed=3) as runtime:
        torch.manual_seed(5)
        step = runtime.wrap(Step())
        optimizer = torch.optim.SGD(step.parameters(), 0.02, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        records = fit(
            step,
            optimizer,
            batches or Numbers(),
            epochs=epochs,
            runtime=runtime,
            run=run,
            scheduler=scheduler,
            validate=lambda: {"noise": float(runtime.generator("validation").initial_seed() % 7 + torch.rand(()))},
            monitor="noise",
            **options,
        )
        return unwrap(step).state_dict(), records


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def without_time(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


@pytest.mark.parametrize("stop_at", [(0, 3), (1, 0), (2, 6)])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: pathlib.Path, stop_at) -> None:
    expected, expected_records = train(Run(tmp_path / "whole", CONFIG))
    stopping = Numbers()
    stopping.stop_at = stop_at
    with pytest.raises(Interrupted):
        train(Run(tmp_path / "cut", CONFIG), batches=stopping)
    resumed = Run(tmp_path / "cut", CONFIG, resume=True)
    actual, records = train(resumed)
    assert same(actual, expected)
    assert without_time(records) == without_time(expected_records)
    assert without_time(read_metrics(tmp_path / "cut")) == without_time(read_metrics(tmp_path / "whole"))
    left, right = (load_checkpoint(tmp_path / name / "best.pt")["record"] for name in ("cut", "whole"))
    assert without_time([left]) == without_time([right])


def test_handlers_of_signals_are_the_callers_again_after_training() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(None, epochs=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_checkpoint_with_the_sums_of_one_process_resumes(tmp_path: pathlib.Path) -> None:
    expected, _ = train(Run(tmp_path / "whole", CONFIG))
    stopping = Numbers()
    stopping.stop_at = (1, 3)
    with pytest.raises(Interrupted):
        train(Run(tmp_path / "cut", CONFIG), batches=stopping)
    state = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    (state["progress"]["sums"],) = state["progress"]["sums"]  # as it was written before there was one a process
    save_checkpoint(tmp_path / "cut" / "checkpoint.pt", state)
    actual, records = train(Run(tmp_path / "cut", CONFIG, resume=True))
    assert same(actual, expected)
    assert without_time(records) == without_time(read_metrics(tmp_path / "whole"))


def test_run_directory_has_everything(tmp_path: pathlib.Path) -> None:
    state, records = train(Run(tmp_path / "run", CONFIG), epochs=2)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == CONFIG
    assert [record["epoch"] for record in read_metrics(tmp_path / "run")] == [1, 2]
    assert records[0].keys() >= {"epoch", "lr", "loss", "absolute", "noise", "seconds"}
    assert same(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"], state)
    best = load_checkpoint(tmp_path / "run" / "best.pt")["record"]
    assert best["noise"] == max(record["noise"] for record in records)
    assert not list((tmp_path / "run").glob(".*.tmp"))


KILLED = """
import sys, os, signal, pathlib
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_loop
from robustvision_core.run.folder import Run

class Deadly(test_loop.Numbers):
    def epoch(self, epoch, start=0):
        for number, batch in enumerate(super().epoch(epoch, start), start):
            if (epoch, number) == (2, 4):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

test_loop.train(Run({folder!r}, test_loop.CONFIG), batches=Deadly())
"""


def test_killed_run_resumes_from_its_last_checkpoint(tmp_path: pathlib.Path) -> None:
    expected, _ = train(Run(tmp_path / "whole", CONFIG))
    folder = tmp_path / "killed"
    script = KILLED.format(tests=str(pathlib.Path(__file__).parent), folder=str(folder))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"epoch": 3, "lo')  # a line cut short by the kill
    actual, _ = train(Run(folder, CONFIG, resume=True))
    assert same(actual, expected)
    assert [record["epoch"] for record in read_metrics(folder)] == [1, 2, 3, 4]


def test_a_crash_while_writing_keeps_the_old_checkpoint(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.ones(3)})

    class Unsavable:
        def __reduce__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"a": torch.zeros(3), "b": Unsavable()})
    assert torch.equal(load_checkpoint(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_truncated_or_executable_checkpoints_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.ones(3000)})
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt (is truncated|holds more)"):
            load_checkpoint(path)
    torch.save({"a": pathlib.Path("x").resolve}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")


def test_another_configuration_is_refused_by_field(tmp_path: pathlib.Path) -> None:
    Run(tmp_path / "run", CONFIG | {"out": "a", "net": {"width": 3}}).begin()
    with pytest.raises(CheckpointError, match=r"net\.width is 3 there and 4 here; seed is 3 there and 4 here"):
        Run(tmp_path / "run", CONFIG | {"seed": 4, "net": {"width": 4}, "out": "b"}, resume=True)
    with pytest.raises(UserError, match="already holds a run"):
        Run(tmp_path / "run", CONFIG)
    with pytest.raises(UserError, match="nothing to resume"):
        Run(tmp_path / "other", CONFIG, resume=True)


def test_non_finite_loss_stops_and_keeps_the_last_epoch(tmp_path: pathlib.Path) -> None:
    class Poisoned(Numbers):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
            for number, batch in enumerate(super().epoch(epoch, start)):
                yield batch * float("nan") if (epoch, number) == (2, 5) else batch

    with pytest.raises(NonFiniteLossError, match="the loss became nan in epoch 3"):
        train(Run(tmp_path / "run", CONFIG), batches=Poisoned())
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state["progress"]["epoch"] == 2
    assert all(value.isfinite().all() for value in state["step"].values())


class Given(nn.Module):
    """A loss that the batch alone decides; its one weight never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": batch.square().mean() + 0 * self.weight.sum(), "largest": batch.max()}


def test_a_record_is_the_mean_over_its_own_epoch() -> None:
    with Runtime.session("cpu") as runtime:
        step = runtime.wrap(Given())
        optimizer = torch.optim.SGD(step.parameters(), 0.1)
        records = fit(step, optimizer, Numbers(60), epochs=3, runtime=runtime)
    for epoch, record in enumerate(records):
        batches = list(Numbers(60).epoch(epoch))
        assert record["epoch"] == epoch + 1
        assert record["lr"] == 0.1
        assert record["loss"] == pytest.approx(sum(float(b.square().mean()) for b in batches) / 60, rel=1e-5)
        assert record["largest"] == pytest.approx(sum(float(b.max()) for b in batches) / 60, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "higher", "best", "best_epoch"),
    [
        ([math.inf, 0.5, 0.4], True, 0.5, 2),
        ([math.nan, 0.5, 0.4], True, 0.5, 2),
        ([0.3, math.nan, 0.2], True, 0.3, 1),
        ([-math.inf, 0.5, 0.4], False, 0.4, 3),
        ([0.3, 0.3, 0.1], True, 0.3, 1),  # the first of equals
        ([0.3, 0.2, 0.2], False, 0.2, 2),
        ([math.nan, math.nan, math.nan], True, None, 0),
    ],
)
def test_the_best_epoch_has_the_best_finite_value(
    tmp_path: pathlib.Path, values: list[float], higher: bool, best: float | None, best_epoch: int
) -> None:
    run, left = Run(tmp_path / "run", CONFIG), iter(values)
    with Runtime.session("cpu") as runtime:
        step = runtime.wrap(Given())
        optimizer = torch.optim.SGD(step.parameters(), 0.1)
        options: dict[str, Any] = {"validate": lambda: {"v": next(left)}, "monitor": "v", "higher_is_better": higher}
        fit(step, optimizer, Numbers(2), epochs=3, runtime=runtime, run=run, **options)
    progress = load_checkpoint(run.checkpoint_path)["progress"]
    assert (progress["best"], progress["best_epoch"]) == (best, best_epoch)
    assert run.best_path.exists() == (best is not None)
    if best is not None:
        assert load_checkpoint(run.best_path)["record"]["v"] == best


def test_clip_norm_bounds_the_gradient() -> None:
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))
            return super().step(closure)

    with Runtime.session("cpu") as runtime:
        step = runtime.wrap(Step())
        fit(step, Watch(step.parameters(), 0.1), Numbers(), epochs=1, runtime=runtime, clip_norm=0.01)
    assert max(seen) <= 0.01 * (1 + 1e-5)


def test_a_file_as_run_folder_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in ("taken", "taken/run"):
        with pytest.raises(UserError, match="taken is a file: give a folder as --out"):
            Run(tmp_path / folder, CONFIG)


@pytest.mark.parametrize(("text", "message"), [('{"a": ', "is no JSON"), ("[1]", "holds no configuration, but a list")])
def test_a_broken_configuration_is_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Run(tmp_path, CONFIG, resume=True)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path, Seeded, "test")


@dataclasses.dataclass(frozen=True)
class Seeded:
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.seed >= 0


def test_a_configuration_of_other_types_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": "many"}')
    with pytest.raises(CheckpointError, match="is not of test"):
        read_config(tmp_path, Seeded, "test")
