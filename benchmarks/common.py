"""What every benchmark shares: fair timing, a record of the machine, JSON and a Markdown table."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each function, called in turns so that all meet the same load of the machine.

    With ``clock=time.process_time`` they are those of the processor, which other programs do not take away.
    """
    cuda = torch.cuda.is_available()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            if cuda:
                torch.cuda.synchronize()
            started = clock()
            function()
            if cuda:
                torch.cuda.synchronize()
            if turn >= warmup:
                times[name].append(clock() - started)
    return times


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in seconds."""
    low, median, high = statistics.quantiles(times, n=4)
    return {"median": median, "lower_quartile": low, "upper_quartile": high}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": device,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
    }


def save(script: str, question: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> pathlib.Path:
    """Write ``results/NAME.json`` and ``NAME.md`` beside the script, print the table and return the JSON's path.

    Args:
        script: ``__file__`` of the benchmark.
        question: What it answers.
        rows: One mapping a row of the table, all with the same keys.
        more: What else the JSON should hold.
    """
    path = pathlib.Path(script)
    folder = path.parent / "results"
    folder.mkdir(exist_ok=True)
    command = f"python -m benchmarks {path.parent.name} {path.stem}"
    record = {"question": question, "command": command, "machine": machine(), **more, "rows": list(rows)}
    (folder / f"{path.stem}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    table = markdown(rows)
    where = "".join(f"{key}: {value}; " for key, value in record["machine"].items()).rstrip("; ")
    (folder / f"{path.stem}.md").write_text(f"# {question}\n\n{table}\n{where}\n\n`{command}`\n", encoding="utf-8")
    print(table, flush=True)
    return folder / f"{path.stem}.json"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; numbers get four significant digits."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def mean_and_spread(values: Sequence[float]) -> str:
    """``mean ± standard deviation`` of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def data_root() -> pathlib.Path | None:
    """The folder of real data sets, if ``ROBUSTVISION_DATA`` names one; says so on stderr if not."""
    root = os.environ.get("ROBUSTVISION_DATA", "")
    if root and pathlib.Path(root).is_dir():
        return pathlib.Path(root)
    print("ROBUSTVISION_DATA names no folder of real data", file=sys.stderr)
    return None
