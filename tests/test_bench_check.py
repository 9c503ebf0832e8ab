"""The comparison of benchmarks sees what became slower, and nothing else."""

from __future__ import annotations

import pathlib
from types import ModuleType

import pytest
from robustvision_core.testing.modules import load_module

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_module(ROOT / "benchmarks" / "check.py", "bench_check")


BEFORE = [
    {"size": "small", "ms": 3.0, "ours / rival": 2.0, "rival / ours": 0.5},
    {"size": "large", "ms": 9.0, "ours / rival": 1.0, "rival / ours": 1.0},
]
COLUMNS = {"ours / rival": "lower", "rival / ours": "higher"}


def changed(**values: float) -> list[dict]:
    return [BEFORE[0], BEFORE[1] | values]


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({}, 0),
        ({"ours / rival": 1.14}, 0),
        ({"ours / rival": 1.16}, 1),
        ({"ours / rival": 0.2}, 0),
        ({"rival / ours": 0.8}, 1),
        ({"rival / ours": 5.0}, 0),
        ({"ms": 90.0}, 0),
        ({"ours / rival": 1.5, "rival / ours": 0.6}, 2),
    ],
)
def test_only_figures_that_became_worse_are_named(check: ModuleType, values: dict[str, float], seen: int) -> None:
    lines = list(check.slower(BEFORE, changed(**values), COLUMNS))
    assert len(lines) == seen
    assert all(line.startswith("large") for line in lines)


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_every_benchmark_of_speed_is_compared(check: ModuleType, factor: float) -> None:
    for name, columns in check.SPEED.items():
        held = check.read(check.FOLDER / check.path_of(name))
        assert held is not None, name
        rows = held["rows"]
        scaled = [
            {key: value * factor if isinstance(value, float) else value for key, value in row.items()} for row in rows
        ]
        worse = check.LOWER if factor > 1 else check.HIGHER
        assert bool(list(check.slower(rows, scaled, columns))) == (worse in columns.values()), name
