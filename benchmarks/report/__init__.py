"""``python -m benchmarks report``: the pages of docs/report, from ``claims.toml`` and the JSON of every package.

The same files give the same bytes. No figure is typed by hand: a claim names the JSON and the place in it.
"""

from __future__ import annotations

import pathlib
import sys

from benchmarks.report.figures import ClaimError
from benchmarks.report.pages import written

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs" / "report"


def main(folder: pathlib.Path = FOLDER) -> int:
    """Write every page and drawing, and remove those that no claim gives any more; a claim's fault is one line."""
    try:
        made = written()
    except ClaimError as error:
        print(error, file=sys.stderr)
        return 2
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    old = [path for path in folder.rglob("*.*") if path.relative_to(folder).as_posix() not in made]
    for path in old:
        path.unlink()
    print(f"{len(made)} pages and drawings in {folder}")
    return 0
