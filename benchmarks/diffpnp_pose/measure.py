"""Interleaved timing, and results as JSON with a Markdown table beside."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("torch", "opencv-python", "kornia", "numpy", "pytorch3d")


def interleaved(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every task, run in turn so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def versions() -> dict[str, str]:
    """Versions of what was measured; absent packages are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The processor, and how much of it was used."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def save(name: str, question: str, rows: Sequence[dict[str, Any]], notes: str = "") -> None:
    """Write `results/NAME.json` and `results/NAME.md`."""
    command = f"python benchmarks/diffpnp_pose/{pathlib.Path(sys.argv[0]).name}"
    record = {"question": question, "command": command, "machine": machine(), "versions": versions(), "rows": rows}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    table += ["| " + " | ".join(_cell(row.get(key)) for key in columns) + " |" for row in rows]
    where = ", ".join(f"{key} {value}" for key, value in (record["machine"] | record["versions"]).items())
    text = "\n".join([f"# {question}", "", notes, "", *table, "", f"`{command}` on {where}", ""])
    RESULTS.mkdir(exist_ok=True)
    for suffix, content in ((".json", json.dumps(record, indent=1) + "\n"), (".md", text)):
        target = RESULTS / (name + suffix)
        temporary = target.with_suffix(".partial")
        temporary.write_text(content)
        os.replace(temporary, target)
    print(text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
