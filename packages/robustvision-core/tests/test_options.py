"""The options shared by all training commands."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from robustvision_core.config import RUN_FIELDS
from robustvision_core.errors import UserError
from robustvision_core.run.options import RunOptions
from robustvision_core.run.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class Config(RunOptions):
    epochs: int = 1
    lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "epochs")
        self.positive("lr")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"resume": True}, "--resume needs --out"),
        ({"epochs": -1}, "epochs must be 0 or more, got -1"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
    ],
)
def test_bad_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(**values)


def test_run_in_the_folder_asked(tmp_path: pathlib.Path) -> None:
    run = Config(out=str(tmp_path / "here"), epochs=7).open_run("unused", Runtime.from_env("cpu"))
    run.begin()
    assert json.loads((tmp_path / "here" / "config.json").read_text())["epochs"] == 7


def test_run_in_a_new_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Config().open_run("name", Runtime.from_env("cpu"))
    assert run.folder.parent == pathlib.Path("runs")
    assert run.folder.name.startswith("name-")
    run.close()
    assert not pathlib.Path("runs").exists()  # nothing but the lock is written before the run begins


def new_run_folder(runtime: Runtime) -> str:
    return str(Config().open_run(f"rank{runtime.rank}", runtime).folder)


def test_processes_share_the_new_folder(two_ranks) -> None:
    first, second = two_ranks(new_run_folder)
    assert first == second
    assert "rank0" in first


def test_a_resumed_run_may_change_where_it_runs_but_not_its_seed() -> None:
    free = {field.name for field in dataclasses.fields(RunOptions)} & RUN_FIELDS
    assert {field.name for field in dataclasses.fields(RunOptions)} - free == {"seed", "precision"}
