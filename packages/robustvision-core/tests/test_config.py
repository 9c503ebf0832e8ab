"""Configurations from options and from files: groups, former names, presets, and mistakes in one line."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, ClassVar, Literal

import pytest
from robustvision_core.cli import parse
from robustvision_core.cli.parsing import canonical
from robustvision_core.config import changed, check_same_config, fits, flatten, from_plain, leaf_types, plain
from robustvision_core.errors import CheckpointError, UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    """The inner loop."""

    steps: int = 5
    """How many."""
    rate: float = 0.1
    """How far."""
    norm: Literal["none", "batch", "layer"] = "batch"
    """Which."""
    first_order: bool = False
    """Whether to leave out the second."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A test."""

    preset: str = "quick"
    """Which defaults."""
    network: Literal["conv4", "resnet12"] = "conv4"
    """Which."""
    rate: float | None = None
    """None chooses."""
    sizes: tuple[int, ...] = (1, 2)
    """Some."""
    window: tuple[float, float] = (0.5, 1.0)
    """Two."""
    augment: bool = True
    """Whether."""
    inner: Inner = Inner()
    ALIASES: ClassVar[dict[str, str]] = {"backbone": "network", "adapt_steps": "inner.steps", "flip": "augment"}
    PRESETS: ClassVar[dict[str, Config]]


Config.PRESETS = {"quick": Config(), "deep": Config(preset="deep", network="resnet12", inner=Inner(steps=9))}
QUICK = Config()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], QUICK),
        (["--inner.steps", "3"], Config(inner=Inner(steps=3))),
        (["--inner-steps", "3"], Config(inner=Inner(steps=3))),
        (["--inner_steps=3"], Config(inner=Inner(steps=3))),
        (["--adapt-steps", "3"], Config(inner=Inner(steps=3))),
        (["--backbone", "resnet12"], Config(network="resnet12")),
        (["--no-augment"], Config(augment=False)),
        (["--no-flip"], Config(augment=False)),
        (["--augment", "False"], Config(augment=False)),
        (["--augment=true"], QUICK),
        (["--inner.first-order"], Config(inner=Inner(first_order=True))),
        (["--inner-first-order", "True"], Config(inner=Inner(first_order=True))),
        (["--inner.no-first-order"], QUICK),
        (["--no-inner-first-order"], QUICK),
        (["--sizes", "4", "5", "6"], Config(sizes=(4, 5, 6))),
        (["--window", "0.1", "0.2"], Config(window=(0.1, 0.2))),
        (["--rate", "0.5"], Config(rate=0.5)),
        (["--rate", "None"], QUICK),
        (["--preset", "deep"], Config.PRESETS["deep"]),
        (["--preset=deep", "--inner-norm", "layer"], Config("deep", "resnet12", inner=Inner(9, norm="layer"))),
    ],
)
def test_options(argv: list[str], expected: Config) -> None:
    assert parse(Config, argv, "test") == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--inner.step", "3"], "unknown option '--inner.step': did you mean '--inner.steps'?"),
        (["--bckbone", "conv4"], "unknown option '--bckbone'"),
        (["--network", "resnet21"], "unknown value of --network 'resnet21': did you mean 'resnet12'?"),
        (["--inner-norm", "bach"], "unknown value of --inner.norm 'bach': did you mean 'batch'?"),
        (["--inner-norm=bach"], "unknown value of --inner.norm 'bach': did you mean 'batch'?"),
        (["--preset", "depe"], "unknown preset 'depe': did you mean 'deep'?"),
        (["--inner.steps", "many"], "--inner.steps"),
        (["--inner.steps", "0"], "steps must be at least 1, got 0"),
        (
            ["--inner.steps", "1" + "0" * 30],
            "--inner.steps is 1000000000000000000000000000000, which",
        ),
        (["--rate", "fast"], "--rate"),
        (["--window", "1"], "--window"),
        (["--window", "1", "x"], "--window"),
        (["--sizes", "1.5"], "--sizes"),
        (["--augment", "maybe"], "maybe"),
        (["stray"], "stray"),
        (["--inner.steps"], "--inner.steps"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(Config, argv, "test")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_shows_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Config, ["--help"], "test")
    assert not stopped.value.code
    text = capsys.readouterr().out
    assert "--inner.steps" in text
    assert "--no-augment" in text
    assert "inner options" in text


def test_canonical_leaves_values_alone() -> None:
    assert canonical(Config, ["--sizes", "-1", "2", "-x"]) == ["--sizes", "-1", "2", "-x"]


def test_a_file_gives_back_what_was_asked() -> None:
    config = Config("deep", rate=0.5, sizes=(), inner=Inner(2, norm="none"))
    assert from_plain(Config, json.loads(json.dumps(plain(config))), "file", "test") == config


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, QUICK),
        ({"inner": {"steps": 3}}, Config(inner=Inner(steps=3))),
        ({"inner_steps": 3, "backbone": "resnet12", "inner_first_order": True},
         Config(network="resnet12", inner=Inner(3, first_order=True))),
        ({"adapt_steps": 3, "flip": False}, Config(augment=False, inner=Inner(3))),
        ({"rate": 1, "window": [0, 1]}, Config(rate=1, window=(0, 1))),
        ({"preset": "deep"}, Config(preset="deep")),  # a file says all that differs from the dataclass
    ],
)  # fmt: skip
def test_files_of_today_and_before(held: dict[str, Any], expected: Config) -> None:
    assert from_plain(Config, held, "file", "test") == expected


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"innr": 1, "depth": 2}, "file is not of test: it has depth, innr"),
        ({"inner": {"stepps": 3}}, "it has inner.stepps"),
        ({"inner": 3}, "it has inner"),
        ({"network": {"a": 1}}, "it has network.a"),
        ({"inner": {"steps": "3"}}, "inner.steps is '3', which is no whole number"),
        ({"inner": {"steps": True}}, "inner.steps is True, which is no whole number"),
        ({"inner": {"steps": 3.0}}, "inner.steps is 3.0, which is no whole number"),
        ({"inner": {"steps": 2**64}}, "which is no whole number of 64 bits"),
        ({"inner": {"norm": "bach"}}, "inner.norm is 'bach', which is no one of none, batch, layer"),
        ({"inner": {"steps": 0}}, "file: steps must be at least 1, got 0"),
        ({"rate": "fast"}, "rate is 'fast'"),
        ({"rate": 10**400}, "rate is 1000"),
        ({"sizes": [1, "2"]}, "sizes is (1, '2')"),
        ({"sizes": 3}, "sizes is 3"),
        ({"window": [1, 2, 3]}, "window is (1, 2, 3)"),
        ({"augment": 1}, "augment is 1, which is no true or false"),
        ({"augment": None}, "augment is None"),
    ],
)
def test_files_with_mistakes(held: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        from_plain(Config, held, "file", "test")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_differences_are_named_but_for_the_free_fields() -> None:
    left, right = plain(QUICK), plain(Config("deep", inner=Inner(7, rate=0.2)))
    with pytest.raises(CheckpointError, match=r"inner\.rate is 0\.1 there and 0\.2 here; inner\.steps is 5"):
        check_same_config(left, right, "file")
    check_same_config(left, right, "file", {"preset", "inner"})
    check_same_config(left, right, "file", {"preset", "inner.rate", "inner.steps"})


def test_leaves() -> None:
    assert list(leaf_types(Config)) == [
        "preset", "network", "rate", "sizes", "window", "augment",
        "inner.steps", "inner.rate", "inner.norm", "inner.first_order",
    ]  # fmt: skip
    assert dict(flatten({"a": {"b": {"c": 1}}, "d": {}})) == {"a.b.c": 1}


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (math.inf, float, True), (1, float, True), (True, float, False), ("1", float, False), (-(2**63), int, True),
        (2**64 - 1, int, True), (2**64, int, False), (-(2**63) - 1, int, False), (1, bool, False),
        (1, Literal[1], True),
        (True, Literal[1], False), (None, int | None, True), ([1], list[int], True), ({}, dict[str, int], True),
        (object(), Any, True), ((1, 2), tuple[int, ...], True), ((1, 2), tuple[int], False), ([1], tuple[int], False),
    ],
)  # fmt: skip
def test_fits(value: object, kind: object, right: bool) -> None:
    assert fits(value, kind) is right


def test_changed_takes_the_names_of_options() -> None:
    assert changed(QUICK, inner_steps=7, network="resnet12") == Config(network="resnet12", inner=Inner(7))
    assert changed(Config.PRESETS["deep"], flip=False).inner == Inner(9)
    with pytest.raises(UserError, match=r"unknown option 'inner_step': did you mean 'inner\.steps'"):
        changed(QUICK, inner_step=7)
    with pytest.raises(UserError, match="steps must be at least 1"):
        changed(QUICK, inner_steps=0)
