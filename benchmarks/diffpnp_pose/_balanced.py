"""Milliseconds per call of tasks whose durations differ by orders of magnitude, on a machine that others use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import interleaved

TURN = 0.1  # seconds that one turn of any task should take at least


def milliseconds(tasks: dict[str, Callable[[], Any]], repeats: int = 9) -> dict[str, float]:
    """Median time of a call.

    A task far shorter than the scheduler's time slice runs at full speed or loses a whole slice, while a long one sees
    the average load: short tasks are therefore repeated until their turn is as long.
    """
    counts = {name: _count(task) for name, task in tasks.items()}
    turns = {name: _repeated(task, counts[name]) for name, task in tasks.items()}
    times = interleaved(turns, repeats, warmup=1)
    return {name: 1e3 * statistics.median(values) / counts[name] for name, values in times.items()}


def _count(task: Callable[[], Any]) -> int:
    task()
    start = time.perf_counter()
    task()
    return max(1, round(TURN / (time.perf_counter() - start)))


def _repeated(task: Callable[[], Any], count: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(count):
            task()

    return turn
