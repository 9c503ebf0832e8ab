"""A figure of the report: where it stands in a JSON, its value, its spread, and what the paper has."""

from __future__ import annotations

import functools
import json
import math
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

FOLDER = pathlib.Path(__file__).resolve().parents[1]
SAID = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)(?:\s*±\s*(\d+(?:\.\d+)?))?")
KEYS = {
    *("label", "file", "in", "where", "value", "spread", "scale", "digits", "unit"),
    *("paper", "aim", "interval", "minus", "pair", "over"),
}


class ClaimError(ValueError):
    """A claim that asks for what no JSON holds, in one sentence."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        label: What was measured.
        value: Its mean.
        spread: Half the width of its bar; None where it was measured once.
        interval: Whether the bar is a 95 % interval; else a standard deviation.
        paper: The paper's number.
        aim: What this project wanted to reach.
    """

    label: str
    value: float
    spread: float | None
    interval: bool
    unit: str
    digits: int
    paper: float | None
    aim: float | None
    file: str

    @property
    def text(self) -> str:
        """As it is printed, `92.23 ± 0.25`."""
        bar = "" if self.spread is None else f" ± {self.spread:.{self.digits}f}"
        return f"{self.value:.{self.digits}f}{bar}"

    @property
    def away(self) -> str:
        """How far from the paper's number, with its sign."""
        return "" if self.paper is None else f"{self.value - self.paper:+.{self.digits}f}"


def figure(package: str, asked: Mapping[str, Any], unit: str = "") -> Figure:
    """The figure that an entry of a claim asks for.

    Raises:
        ClaimError: The entry has a key that is not known, or nothing in the JSON is as it says.
    """
    if unknown := set(asked) - KEYS:
        raise ClaimError(f"{package}: figure {asked.get('label')!r} has unknown {', '.join(sorted(unknown))}")
    value, spread, digits = _difference(package, asked) if "minus" in asked else _value(package, asked)
    if "over" in asked:
        value, spread = value / _value(package, {**asked, **asked["over"]})[0], None
    scale = asked.get("scale", 1)
    return Figure(
        label=asked["label"],
        value=value * scale,
        spread=None if spread is None else spread * scale,
        interval="minus" in asked or asked.get("interval", False) or "interval" in str(asked.get("spread", "")),
        unit=asked.get("unit", unit),
        digits=asked.get("digits", digits),
        paper=asked.get("paper"),
        aim=asked.get("aim"),
        file=asked["file"],
    )


def _value(package: str, asked: Mapping[str, Any]) -> tuple[float, float | None, int]:
    """Mean, spread and digits of what an entry selects."""
    rows = select(package, asked)
    found = [numbers(reach(row, asked["value"])) for row in rows]
    values = [value for value, _, _ in found]
    digits = max(digits for _, _, digits in found)
    if "spread" in asked:
        return statistics.mean(values), statistics.mean(float(reach(row, asked["spread"])) for row in rows), digits
    if len(values) == 1:
        return found[0]
    return statistics.mean(values), half_width(values) if asked.get("interval") else statistics.stdev(values), digits


def _difference(package: str, asked: Mapping[str, Any]) -> tuple[float, float | None, int]:
    """Mean of paired differences and half their 95 % interval."""
    pair = asked.get("pair", "seed")
    ours, theirs = (
        {reach(row, pair): numbers(reach(row, entry["value"]))[0] for row in select(package, entry)}
        for entry in (asked, {**asked, **asked["minus"]})
    )
    if not (common := [key for key in ours if key in theirs]):
        raise ClaimError(f"{package}: nothing in common by {pair!r} for {asked['label']!r}")
    differences = [ours[key] - theirs[key] for key in common]
    return statistics.mean(differences), half_width(differences) if len(differences) > 1 else None, 2


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of a mean, by Student's t."""
    deviation = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.975)) * deviation


def select(package: str, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a JSON for which all of `where` holds."""
    rows = reach(read(package, asked["file"]), asked.get("in", "rows"))
    rows = rows if isinstance(rows, list) else [rows]
    wanted = asked.get("where", {})
    found = [row for row in rows if all(_held(row, key) == value for key, value in wanted.items())]
    if not found:
        raise ClaimError(f"{package}/results/{asked['file']}.json has nothing where {dict(wanted)}")
    return found


def _held(row: Mapping[str, Any], key: str) -> Any:
    try:
        return reach(row, key)
    except ClaimError:
        return None


def reach(held: Any, path: str) -> Any:
    """What stands under a key; dots reach inside, also where keys have dots of their own.

    Raises:
        ClaimError: There is no such key.
    """
    if isinstance(held, Mapping):
        if path in held:
            return held[path]
        for place, letter in enumerate(path):
            if letter == "." and path[:place] in held:
                return reach(held[path[:place]], path[place + 1 :])
    if isinstance(held, list) and path.partition(".")[0].lstrip("-").isdigit():
        first, _, rest = path.partition(".")
        return reach(held[int(first)], rest) if rest else held[int(first)]
    raise ClaimError(f"no {path!r} in {list(held) if isinstance(held, Mapping) else type(held).__name__}")


def numbers(held: Any) -> tuple[float, float | None, int]:
    """Value, spread and digits of a number or of a text such as `92.23 ± 0.25`.

    Raises:
        ClaimError: It is neither.
    """
    if isinstance(held, int | float):
        return float(held), None, 2
    if isinstance(held, str) and (found := SAID.match(held)):
        mean, spread = found.groups()
        bar = None if spread is None else float(spread)
        return float(mean), bar, len(mean.partition(".")[2])
    raise ClaimError(f"{held!r} is no figure")


@functools.cache
def read(package: str, name: str) -> dict[str, Any]:
    """The JSON of a benchmark.

    Raises:
        ClaimError: There is none.
    """
    path = FOLDER / package / "results" / f"{name}.json"
    if not path.is_file():
        raise ClaimError(f"no {package}/results/{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))
