"""Memory that a call takes, in a process of its own (Linux)."""

from __future__ import annotations

import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def peak_mib(setup: str) -> float:
    """MiB by which a call raises the largest resident memory of a fresh process on one thread; NaN where not on Linux.

    Args:
        setup: Python lines that make `warm` and `call`; `warm()` runs first and is not counted.
    """
    if not _CLEAR.exists():
        return math.nan
    code = (
        f"import torch\ntorch.set_num_threads(1)\n{setup}\nwarm()\n"
        "from benchmarks.memory import growth\nprint(growth(call))\n"
    )
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return round(float(done.stdout.splitlines()[-1]), 1)


def growth(call: Callable[[], Any]) -> float:
    """MiB by which a call raises the largest resident memory of this process."""
    _CLEAR.write_text("5", encoding="ascii")  # the record starts anew
    before = largest_kib()
    call()
    return (largest_kib() - before) / 1024


def largest_kib() -> int:
    """Largest resident memory of this process since the record began."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
