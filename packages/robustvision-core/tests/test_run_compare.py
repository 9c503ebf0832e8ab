"""Finished runs side by side, and the figures of every epoch in TensorBoard and in loggers of one's own."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import sys
from typing import Any

import pytest
import torch
from robustvision_core.cli.parsing import parse
from robustvision_core.errors import UserError
from robustvision_core.run import RunOptions, fit, log_to
from robustvision_core.run.comparing import compare
from robustvision_core.run.comparison import CompareOptions
from robustvision_core.run.loggers import scalars
from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    lr: float = 0.1
    epochs: int = 3


class Ones:
    """Two batches of ones."""

    def __len__(self) -> int:
        return 2

    def epoch(self, epoch: int, start: int = 0) -> Any:
        yield from [torch.ones(4, 2)] * (2 - start)


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).square().mean()


def train(config: Config) -> list[dict[str, Any]]:
    with config.session("test") as (runtime, run):
        step = Step()
        records = fit(
            runtime.wrap(step),
            torch.optim.SGD(step.parameters(), config.lr),
            Ones(),
            epochs=config.epochs,
            runtime=runtime,
            run=run,
            validate=lambda: {"val_accuracy": 0.5},
        )
        run.write_summary({"final": {"accuracy": 1 - config.lr, "counts": [1, 2]}, "note": "text"})
        return records


def make(tmp_path: pathlib.Path, name: str, **options: Any) -> str:
    train(Config(out=str(tmp_path / name), device="cpu", **options))
    return str(tmp_path / name)


def test_compare_shows_what_differs_and_what_came_out(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make(tmp_path, "a"), make(tmp_path, "b", lr=0.25, epochs=2)]
    (tmp_path / "b" / "summary.json").unlink()
    config = parse(CompareOptions, [*runs, "--out", str(tmp_path / "out")], "x compare")
    compare(config)
    printed = capsys.readouterr().out
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        table = {row[0]: row[1:] for row in csv.reader(file)}
    assert table[""] == ["a", "b"]
    assert table["--lr"] == ["0.1", "0.25"]
    assert "--out" not in table
    assert "--seed" not in table
    assert table["epochs done"] == ["3", "2, not finished"]
    assert table["final/accuracy"] == ["0.9", "-"]
    assert table["val_accuracy"] == ["-", "0.5"]
    assert all(cell in printed for cell in ("--lr", "0.25", "2, not finished", "compare.png"))
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_compare_refuses_what_is_no_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="needs two or more run folders"):
        parse(CompareOptions, ["runs/a"], "x compare")
    with pytest.raises(UserError, match=r"no run in .*none: expected a folder with config\.json"):
        compare(CompareOptions(runs=(str(tmp_path / "none"), str(tmp_path))))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json holds a list, expected an object"):
        compare(CompareOptions(runs=(str(tmp_path), str(tmp_path))))


def test_runs_of_one_name_are_told_apart(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "config.json").write_text(json.dumps({"lr": name}))
    folders = tuple(str(tmp_path / name / "run") for name in ("one", "two"))
    out = compare(CompareOptions(runs=folders, out=str(tmp_path / "out")))
    assert (out / "compare.csv").read_text().splitlines()[:2] == [",one/run,two/run", "--lr,one,two"]
    assert not (out / "compare.png").exists()  # neither has an epoch


def test_tensorboard_holds_the_figures_of_every_epoch(tmp_path: pathlib.Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = make(tmp_path, "a", tensorboard=True, epochs=2)
    train(Config(out=folder, device="cpu", tensorboard=True, epochs=4, resume=True))
    events = accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "loss", "val_accuracy", "seconds"}
    records = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "lr"):
        held = {event.step: event.value for event in events.Scalars(name)}
        assert held == pytest.approx({record["epoch"]: record[name] for record in records})
    assert len(records) == 4


def test_tensorboard_missing_is_one_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r'pip install "robustvision-core\[tensorboard\]"'):
        make(tmp_path, "a", tensorboard=True)
    assert not (tmp_path / "a").exists()


def test_a_logger_is_told_of_every_epoch(tmp_path: pathlib.Path) -> None:
    seen: list[tuple[int, pathlib.Path]] = []
    with log_to(lambda record, folder: seen.append((record["epoch"], folder))):
        make(tmp_path, "a")
    make(tmp_path, "b")
    assert seen == [(epoch, tmp_path / "a") for epoch in (1, 2, 3)]


def test_scalars_are_the_finite_numbers() -> None:
    record = {"epoch": 1, "loss": 2, "bad": float("nan"), "flag": True, "list": [1], "final": {"top": {"one": 0.5}}}
    assert scalars(record) == {"loss": 2.0, "final/top/one": 0.5}
