"""A run folder has one writer."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from robustvision_core.errors import UserError
from robustvision_core.run import EvaluateOptions, Run, RunOptions, load_checkpoint
from torch import nn

HOLD = """
import sys
from robustvision_core.run.folder import Run
run = Run(sys.argv[1], {"seed": 0})
run.begin()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes to the run folder `run`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_the_second_writer_is_told_who_holds_the_folder(holder, tmp_path: pathlib.Path) -> None:
    where = rf"process {holder.pid} on {socket.gethostname()}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\S*"
    with pytest.raises(UserError, match=f"another process is writing to .*run .{where}.: give another --out"):
        Run(tmp_path / "run", {"seed": 0}, resume=True)
    holder.send_signal(signal.SIGKILL)
    holder.wait(30)
    assert (tmp_path / "run" / ".lock").exists()  # stale, and no obstacle
    run = Run(tmp_path / "run", {"seed": 0}, resume=True)
    assert json.loads((tmp_path / "run" / ".writer.json").read_text())["pid"] == os.getpid()
    run.close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json"]


def test_the_second_of_two_that_were_opened_together_is_refused(tmp_path: pathlib.Path) -> None:
    first, second = Run(tmp_path / "run", {"seed": 0}), Run(tmp_path / "run", {"seed": 1})
    first.begin()
    with pytest.raises(UserError, match="already holds a run"):
        second.begin()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 0}


@dataclass(frozen=True)
class Config(RunOptions):
    epochs: int = 1


def fail_in_a_session(config: Config) -> None:
    with config.session("name") as (runtime, run):
        assert runtime.is_main
        assert (run.folder / ".lock").exists()
        raise UserError("no data")


def test_a_session_that_fails_leaves_no_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "parent").mkdir()
    with pytest.raises(UserError, match="no data"):
        fail_in_a_session(Config(out=str(tmp_path / "parent" / "new" / "run"), device="cpu"))
    assert not list((tmp_path / "parent").iterdir())


def test_a_trained_run_is_read_where_it_is_tested(tmp_path: pathlib.Path) -> None:
    config = Config(out=str(tmp_path / "run"), device="cpu", data_root="there", seed=4)
    network = nn.Linear(2, 1)
    with config.session("name") as (_, run):
        run.begin()
        assert run.load_best(network) is None
        for path, value in ((run.checkpoint_path, 1.0), (run.best_path, 2.0)):
            weights = {"network.weight": torch.full((1, 2), value), "network.bias": torch.zeros(1)}
            run.save(path, {"step": weights, "record": {"epoch": 7}})
        assert run.load_best(network) == 7
        run.write_summary({"accuracy": 1.0})
    assert network.weight.tolist() == [[2.0, 2.0]]
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written == {"accuracy": 1.0, "config": load_checkpoint(tmp_path / "run" / "best.pt")["config"]}

    options = EvaluateOptions(run=str(tmp_path / "run"), data_root="here", device="cpu")
    trained = options.trained(Config, "a test", epochs=5)
    assert trained == Config(out=str(tmp_path / "run"), device="cpu", data_root="here", seed=4, epochs=5)
    options.load_into(network)
    assert network.weight.tolist() == [[1.0, 1.0]]
