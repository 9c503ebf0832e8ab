"""`pseudolabel-da table`: the eight rows of the paper's table 2 for any pair of domains, each a run that resumes."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from robustvision_core.errors import UserError
from robustvision_core.run.files import write_csv

from pseudolabel_da.algorithm.settings import ALONE
from pseudolabel_da.cli.data import load_pair
from pseudolabel_da.cli.options import TableConfig
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.train import train

Row = tuple[str, str, dict[str, Any], str]


def rows(config: TableConfig) -> list[Row]:
    """Title, folder, what differs from the recipe, and the folder of the row that it begins at, or nothing."""
    few, many = f"{config.small:g}", f"{config.large:g}"
    alone, coral = {"method": "source"}, {"method": "coral", "epochs": config.pretrain}
    return [
        ("source only", "source", alone, ""),
        ("target only", "target", {"method": "target"}, ""),
        ("CORAL", "coral", coral, "source"),
        ("pseudo-labels", "pseudo", {}, "source"),
        (f"{few} of the target labelled", "small", alone | {"labelled": config.small}, ""),
        (f"{few} labelled + pseudo-labels", "small-pseudo", {"labelled": config.small}, "small"),
        (f"{many} of the target labelled", "large", alone | {"labelled": config.large}, ""),
        (f"{many} labelled + pseudo-labels", "large-pseudo", {"labelled": config.large}, "large"),
    ]


def base(config: TableConfig) -> TrainConfig:
    """What all rows share."""
    shared = ("data", "data_root", "download", "network", "weights", "pretrain", "epochs", "batch_size", "period")
    more = ("image_size", "device", "precision", "progress")
    given = {name: getattr(config, name) for name in (*shared, *more)}
    return TrainConfig.PRESETS[config.preset].changed(**given, rho=config.rho)


def row_config(config: TableConfig, row: Row, seed: int) -> TrainConfig:
    """The run of a row: from the weights of the row that it begins at, resumed where it was begun."""
    _, name, changes, start = row
    out = folder_of(config, name, seed)
    made = base(config).changed(seed=seed, out=str(out), resume=(out / "checkpoint.pt").exists(), **changes)
    if changes.get("method") in ALONE:
        made = made.changed(batch_norm="shared")
    if start:
        made = made.changed(pretrain=0, init=str(folder_of(config, start, seed) / "checkpoint.pt"))
    return made


def folder_of(config: TableConfig, name: str, seed: int) -> pathlib.Path:
    """The run folder of a row."""
    return pathlib.Path(config.out) / f"{name}-{seed}"


def table(config: TableConfig) -> pathlib.Path:
    """Run what has not been run, print the table and write it; returns its file.

    Raises:
        UserError: The target has no labels, or the folder holds rows of other options.
    """
    pair, every = load_pair(base(config)), rows(config)
    if not pair.target_labelled:
        raise UserError(f"{config.data}: the table needs labels of the target, to test on and for three of its rows")
    for seed in range(config.seeds):
        for row in every:
            if not (folder_of(config, row[1], seed) / "summary.json").exists():
                sys.stderr.write(f"pseudolabel-da: {row[0]}, seed {seed}\n")
                train(row_config(config, row, seed), pair)
    return write(config, [result(config, row) for row in every])


def result(config: TableConfig, row: Row) -> dict[str, Any]:
    """The figures of a row over its seeds, in percent."""
    found = []
    for seed in range(config.seeds):
        path = folder_of(config, row[1], seed) / "summary.json"
        found.append(json.loads(path.read_text(encoding="utf-8")))
    figures: dict[str, Any] = {"row": row[0]}
    for domain in ("target", "source"):
        values = [100 * summary["final"][domain]["accuracy"] for summary in found]
        figures[domain] = round(statistics.mean(values), 2)
        figures[f"{domain} spread"] = round(statistics.stdev(values), 2) if len(values) > 1 else ""
    figures["pseudo-labels"] = " ".join(str(record["selected"]) for record in found[0]["periods"])
    figures["wrong"] = " ".join(str(record["wrong"]) for record in found[0]["periods"])
    return figures


def write(config: TableConfig, figures: Sequence[dict[str, Any]]) -> pathlib.Path:
    """Write `table2.csv`, and print it in columns."""
    path = pathlib.Path(config.out) / "table2.csv"
    write_csv(path, [list(figures[0]), *(row.values() for row in figures)])
    lines = [f"test accuracy, %, mean of {config.seeds} seed{'s' * (config.seeds > 1)}"]
    lines.append(f"{'':<34}{'target':>8}{'source':>8}")
    lines += [f"{row['row']:<34}{row['target']:>8.2f}{row['source']:>8.2f}" for row in figures]
    sys.stdout.write("\n".join([*lines, f"table: {path}"]) + "\n")
    return path
