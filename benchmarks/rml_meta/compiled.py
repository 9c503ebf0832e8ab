"""The compiled inner loop against the plain one and `higher`, once it is compiled."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.common import interleaved, save, spread
from benchmarks.rml_meta.backends import SETTINGS, by_backend, by_higher

QUESTION = "How fast is a second-order meta-step whose inner loop is compiled, and how long does compiling take?"
LONG = True
SETTING = SETTINGS["Conv4"]
NOTE = "4 tasks of 5 ways, 1 shot, 15 queries a class, 28x28, Conv4 of 32 channels with batch norm, float32"
STEPS = (1, 5)


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    rows, seconds = [], {}
    for steps in STEPS:
        made = {
            "compiled": by_backend(SETTING, "compiled", steps),
            "loop": by_backend(SETTING, "loop", steps),
            "higher": by_higher(SETTING, steps),
        }
        started = time.perf_counter()
        losses = {"compiled": float(made["compiled"]())}
        first = time.perf_counter() - started
        losses |= {name: float(made[name]()) for name in ("loop", "higher")}
        times = interleaved(made, repeats=15, warmup=1)
        medians = {name: spread(values)["median"] for name, values in times.items()}
        seconds[steps] = {name: spread(values) for name, values in times.items()}
        row: dict[str, Any] = {"inner steps": steps, "compiled (ms)": round(1e3 * medians["compiled"], 1)}
        row |= {f"{name} / compiled": medians[name] / medians["compiled"] for name in ("loop", "higher")}
        row |= {"first step (s)": round(first, 1), "losses differ by": max(losses.values()) - min(losses.values())}
        rows.append(row)
    save(__file__, QUESTION, rows, note=NOTE, seconds=seconds, aims="loop / compiled >= 1.15")


if __name__ == "__main__":
    main()
