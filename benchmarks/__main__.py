"""``python -m benchmarks PACKAGE [NAME ...]``: run a package's benchmarks; without names, all but the long ones.

A benchmark is a module of ``benchmarks/PACKAGE`` that says which ``QUESTION`` it answers and has ``main()``. Those with
``LONG = True`` reproduce a table of the paper and run by name only; the others take minutes, the batteries of
fdiv-noisy and pseudolabel-da most of an hour. ``python -m benchmarks check`` compares what they wrote with what is
committed, ``python -m benchmarks report`` writes the pages of docs/report from it.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

from benchmarks import check, report


def main() -> None:
    """Run what the arguments name."""
    package, *wanted = sys.argv[1:] or [""]
    if package in (tools := {"check": check.main, "report": report.main}):
        sys.exit(tools[package]())
    folder = pathlib.Path(__file__).parent / package
    if not package or not folder.is_dir():
        known = sorted(path.name for path in folder.parent.iterdir() if path.is_dir() and "_" in path.name.strip("_"))
        sys.exit(f"usage: python -m benchmarks PACKAGE [NAME ...]; packages: {', '.join(known)}")
    found = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if unknown := set(wanted) - set(found):
        sys.exit(f"{package} has no benchmark {', '.join(unknown)}: it has {', '.join(found)}")
    for name in wanted or found:
        module = importlib.import_module(f"benchmarks.{package}.{name}")
        if not hasattr(module, "QUESTION") or (not wanted and getattr(module, "LONG", False)):
            continue
        print(f"\n# {name}: {module.QUESTION}", flush=True)
        module.main()


if __name__ == "__main__":
    main()
