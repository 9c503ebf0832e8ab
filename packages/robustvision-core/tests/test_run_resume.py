"""What a resumed run may change: more epochs, and options that came later."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import ClassVar, Literal

import pytest
import torch
from robustvision_core.errors import CheckpointError
from robustvision_core.run import RunOptions, fit, load_checkpoint, read_config, save_checkpoint
from robustvision_core.run.runtime import Runtime
from test_loop import Numbers, Step, same, without_time


@dataclasses.dataclass(frozen=True)
class Head:
    width: int = 4


@dataclasses.dataclass(frozen=True)
class Config(RunOptions):
    preset: str = "quick"
    epochs: int = 4
    schedule: Literal["constant", "linear"] = "linear"
    head: Head = Head()
    PRESETS: ClassVar[dict[str, Config]]


Config.PRESETS = {"quick": Config(), "large": Config(preset="large", head=Head(9))}


def train(config: Config) -> tuple[dict[str, torch.Tensor], list[dict]]:
    with config.session("test") as (runtime, run):
        torch.manual_seed(5)
        step = runtime.wrap(Step())
        optimizer = torch.optim.SGD(step.parameters(), 0.02, momentum=0.9)

        def factor(epoch: int) -> float:
            return 1.0 if config.schedule == "constant" else 1 - epoch / config.epochs

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        records = fit(step, optimizer, Numbers(), epochs=config.epochs, runtime=runtime, run=run, scheduler=scheduler)
        return step.state_dict(), records


def test_more_epochs_are_what_they_would_have_been(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Config(out=str(tmp_path / "whole"), schedule="constant", device="cpu", epochs=4)
    expected, expected_records = train(whole)
    config = dataclasses.replace(whole, out=str(tmp_path / "longer"), epochs=2)
    train(config)
    state, records = train(dataclasses.replace(config, epochs=4, resume=True))
    assert same(state, expected)
    assert without_time(records) == without_time(expected_records)
    assert "is trained longer (epochs 2 to 4)" in capsys.readouterr().err
    assert read_config(tmp_path / "longer", Config, "test").epochs == 4
    with pytest.raises(CheckpointError, match="epochs is 4 there and 3 here"):
        train(dataclasses.replace(config, epochs=3, resume=True))
    again, _ = train(dataclasses.replace(config, epochs=4, resume=True))  # nothing is left to do
    assert same(again, expected)


def test_a_schedule_follows_the_new_total(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(out=str(tmp_path / "run"), device="cpu", epochs=2)
    train(config)
    _, records = train(dataclasses.replace(config, epochs=8, resume=True))
    rates = [0.02 * (1 - epoch / total) for epoch, total in enumerate([2, 2, *[8] * 6])]
    assert [record["lr"] for record in records] == pytest.approx(rates)
    assert "from epoch 3 on, which begins with the learning rate 0.015" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["quick", "large"])
def test_options_added_later_take_their_defaults(tmp_path: pathlib.Path, preset: str) -> None:
    config = dataclasses.replace(Config.PRESETS[preset], out=str(tmp_path), device="cpu", epochs=1)
    train(config)
    held = json.loads((tmp_path / "config.json").read_text())
    del held["head"], held["schedule"]
    (tmp_path / "config.json").write_text(json.dumps(held))
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    save_checkpoint(tmp_path / "checkpoint.pt", checkpoint | {"config": held})
    train(dataclasses.replace(config, resume=True))
    with pytest.raises(CheckpointError, match=r"head\.width is 4 there and 7 here"):
        train(dataclasses.replace(config, resume=True, head=Head(7)))


def test_a_run_killed_between_record_and_checkpoint_repeats_the_epoch(tmp_path: pathlib.Path) -> None:
    expected, expected_records = train(Config(out=str(tmp_path / "whole"), device="cpu"))
    config = Config(out=str(tmp_path / "cut"), device="cpu")
    (tmp_path / "cut").mkdir()
    with Runtime.session("cpu") as runtime:
        config.open_run("test", runtime).begin()
    (tmp_path / "cut" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 3.0}\n')
    state, records = train(dataclasses.replace(config, resume=True))
    assert same(state, expected)
    assert without_time(records) == without_time(expected_records)


def test_a_damaged_line_of_the_records_costs_that_line_alone(tmp_path: pathlib.Path) -> None:
    config = Config(out=str(tmp_path), device="cpu", epochs=3)
    train(config)
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(
        lines[0] + b'{"epoch": 2, \xff\n' + b"[" * 9999 + b"\n" + b"3\n" + lines[2]
    )
    _, records = train(dataclasses.replace(config, epochs=4, resume=True))
    assert [record["epoch"] for record in records] == [1, 3, 4]
