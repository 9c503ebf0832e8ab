"""The shared command line: verbs, presets, errors in one line, exit codes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
from robustvision_core.cli import dispatch, parse, split_verb
from robustvision_core.errors import Interrupted, UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the test verb."""

    preset: str = "small"
    """Which defaults."""
    size: int = 3
    """How large."""
    fail: str = ""
    """How to fail."""
    shout_it: bool = False
    """Whether to shout."""
    PRESETS: ClassVar[dict[str, Config]]

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UserError(f"size must be >= 0, got {self.size}")


Config.PRESETS = {"small": Config(), "large": Config(preset="large", size=99)}


def verb(config: Config) -> None:
    """The test verb."""
    if config.fail == "user":
        raise UserError("the file is gone")
    if config.fail == "interrupt":
        raise KeyboardInterrupt
    sys.stdout.write(f"size {config.size}{'!' if config.shout_it else ''}\n")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str, str]]:
    monkeypatch.setitem(sys.modules, "cli_under_test", sys.modules[__name__])
    return {
        "grow": ("make it grow", "cli_under_test:verb", "cli_under_test:Config"),
        "grow more": ("again", "cli_under_test:verb", "cli_under_test:Config"),
    }


@pytest.mark.parametrize(
    ("argv", "status", "out", "err"),
    [
        (["grow"], 0, "size 3", ""),
        (["grow", "--size", "5"], 0, "size 5", ""),
        (["grow", "--preset", "large"], 0, "size 99", ""),
        (["grow", "--preset=large", "--size", "7"], 0, "size 7", ""),
        (["grow", "--shout-it"], 0, "size 3!", ""),
        (["grow", "--shout_it", "--size", "5"], 0, "size 5!", ""),
        (["grow", "--shout-it", "True"], 0, "size 3!", ""),
        (["grow", "--shout-it", "False", "--size", "5"], 0, "size 5\n", ""),
        (["grow", "more"], 0, "size 3", ""),
        (["grow", "--preset", "larg"], 2, "", "unknown preset 'larg': did you mean 'large'?"),
        (["grow", "--size", "-1"], 2, "", "size must be >= 0, got -1"),
        (["grow", "--fail", "user"], 2, "", "robustvision-core: error: the file is gone"),
        (["grow", "--fail", "interrupt"], 130, "", "stopped"),
        (["grw"], 2, "", "unknown verb 'grw': did you mean 'grow'?"),
        (["--help"], 0, "make it grow", ""),
        (["--version"], 0, "robustvision-core 0.1.0", ""),
        ([], 2, "usage: robustvision-core VERB", ""),
    ],
)
def test_dispatch(commands, capsys, argv: list[str], status: int, out: str, err: str) -> None:
    assert dispatch("robustvision_core", commands, argv) == status
    written = capsys.readouterr()
    assert out in written.out
    assert err in written.err
    assert written.err.count("\n") <= 1


def test_unknown_option_exits_with_2(commands) -> None:
    assert dispatch("robustvision_core", commands, ["grow", "--sizes", "3"]) == 2


def test_the_longest_verb_wins() -> None:
    assert split_verb(["noise", "make", "x"], {"noise": 1, "noise make": 2}) == ("noise make", ["x"])


def test_parse_gives_the_dataclass() -> None:
    assert parse(Config, ["--size", "4"], "test") == Config(size=4)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from robustvision_core.cli import dispatch;"
        "dispatch('robustvision_core', {'a': ('b', 'c:d', 'c:E')}, ['--help']);"
        "heavy = {'torch', 'numpy', 'tyro', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_is_one_line(number: signal.Signals, status: int, tmp_path: pathlib.Path) -> None:
    started = tmp_path / "started"
    (tmp_path / "sleeper").mkdir()
    (tmp_path / "sleeper" / "__init__.py").write_text("")
    (tmp_path / "sleeper" / "__main__.py").write_text(
        "import pathlib, sys, time\n"
        "try:\n"
        "    pathlib.Path(sys.argv[1]).touch()\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    sys.stderr.write('sleeper: stopped\\n')\n"
    )
    code = "import sys; from robustvision_core.cli import launch; sys.exit(launch('sleeper', 1, sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(started)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == status, errors
    assert errors == ("sleeper: stopped\n" if number == signal.SIGINT else "")


GO_ON = "robustvision-core stop --fail trained --out 'runs/a b' --resume"


def stop_by(config: Config) -> None:
    if config.fail == "file":
        raise OSError(28, "No space left on device", "runs/a/checkpoint.pt")
    if config.fail == "nameless":
        raise OSError("disk full")
    if config.fail == "memory":
        raise MemoryError("Unable to allocate 9 TiB")
    if config.fail == "pipe":
        raise BrokenPipeError
    if config.fail == "trained":
        raise Interrupted(signal.SIGINT, "runs/a b")
    if config.fail == "surrogate":
        raise UserError("no folder runs/\udcff")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


@pytest.mark.parametrize(
    ("fail", "status", "err"),
    [
        ("file", 2, "error: runs/a/checkpoint.pt: No space left on device\n"),
        ("nameless", 2, "error: disk full\n"),
        ("memory", 2, "error: not enough memory: Unable to allocate 9 TiB\n"),
        ("pipe", 141, ""),
        ("surrogate", 2, "error: no folder runs/\\udcff\n"),
        ("signal", 143, "stopped\n"),
        ("trained", 130, f"stopped; the run is in runs/a b, go on with: {GO_ON}\n"),
    ],
)  # fmt: skip
def test_every_end_has_its_status_and_one_line(monkeypatch, capsys, fail: str, status: int, err: str) -> None:
    monkeypatch.setitem(sys.modules, "cli_under_test", sys.modules[__name__])
    table = {"stop": ("stop", "cli_under_test:stop_by", "cli_under_test:Config")}
    before = signal.getsignal(signal.SIGTERM)
    assert dispatch("robustvision_core", table, ["stop", "--fail", fail]) == status
    assert capsys.readouterr().err.endswith(err)
    assert signal.getsignal(signal.SIGTERM) is before
