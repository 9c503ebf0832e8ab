"""``python -m benchmarks check``: what became slower than the committed figures say, by more than its noise.

Run the benchmarks first; each rewrites its JSON, and this compares the JSON in the working tree with the committed one.
Only ratios within one run are compared, for seconds belong to their machine.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

FOLDER = pathlib.Path(__file__).parent
NOISE = 0.15  # share by which ratios of medians were seen to differ between runs on a loaded machine
LOWER, HIGHER = "lower", "higher"

# benchmark: columns of ratios (a regular expression) and which side is better
SPEED: dict[str, dict[str, str]] = {
    "fdiv_noisy/loss_cost": {r"(?!B, K|CE|aim).*": LOWER},
    "fdiv_noisy/training_step": {r"(?!network|batch|CE|aim).*": LOWER},
    "flowaug/speed": {r"plain / ours": HIGHER},
    "pseudolabel_da/labelling": {r"ratio|one image at a time \(ratio\)": HIGHER},
    "rml_meta/backends": {r"(loop|recompute|grouped) / higher": LOWER, r"(loop|recompute|grouped) \(MiB\)": LOWER},
    "rml_meta/compiled": {r"loop / compiled": HIGHER},
    "diffpnp_pose/timing": {r"forward / SQPNP": LOWER},
    "diffpnp_pose/step_time": {r"step / l_h": LOWER},
    "diffpnp_pose/published_layer": {r"(published|lean|faster) / ours": HIGHER},
}


def main() -> int:
    """Print each comparison that was made and each figure that became worse; the status is 1 where one did."""
    worse = 0
    for name, columns in SPEED.items():
        before, now = committed(name), read(FOLDER / path_of(name))
        if before is None or now is None or before == now:
            print(f"{name}: {'not committed' if before is None else 'not run'} since, nothing to compare")
            continue
        found = list(slower(before["rows"], now["rows"], columns))
        print(f"{name}: {len(found)} figures worse by more than {NOISE:.0%}")
        for line in found:
            print(f"    {line}")
        worse += len(found)
    return int(worse > 0)


def slower(
    before: list[Mapping[str, Any]], now: list[Mapping[str, Any]], columns: Mapping[str, str], noise: float = NOISE
) -> Iterator[str]:
    """The figures of `now` that are worse than those of `before` by more than `noise`, in words.

    Rows belong together where all that is no number of a figure or a time is the same.
    """
    held = {_key(row, columns): row for row in before}
    for row in now:
        key = _key(row, columns)
        for column, value in row.items():
            old = held.get(key, {}).get(column)
            side = next((side for pattern, side in columns.items() if re.fullmatch(pattern, column)), None)
            if side is None or not _number(value) or not _number(old):
                continue
            change = value / old if side == LOWER else old / value
            if change > 1 + noise:
                yield f"{', '.join(key)}: {column} {old:.3g} -> {value:.3g}"


def _key(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    figures = [*columns, r".*\((ms|us|s|MiB)\)"]
    named = {name: value for name, value in row.items() if not any(re.fullmatch(figure, name) for figure in figures)}
    return tuple(str(value) for value in named.values() if isinstance(value, str | int))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def path_of(name: str) -> str:
    """Where the JSON of a benchmark stands, below this folder."""
    package, _, script = name.partition("/")
    return f"{package}/results/{script}.json"


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """The JSON of a benchmark, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def committed(name: str) -> dict[str, Any] | None:
    """The JSON as it stands in the last commit."""
    command = ["git", "-C", str(FOLDER), "show", f"HEAD:./{path_of(name)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None
