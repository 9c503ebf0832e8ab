"""`rml-meta grid`: tables I and II of the paper, every method on every protocol; finished cells are kept."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json

from rml_meta.cli.options import GridConfig
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.reported import PROTOCOLS, REPORTED

SMALLEST = {"mini": 600, "cub": 41, "sun": 20}
"""Images of the smallest class: what shots and queries of all environments must share."""


class Cell(NamedTuple):
    """One training of the grid.

    Attributes:
        name: Of its folder.
        protocol: Name of the protocol, or of the set.
        shots: K.
        method: Name of the method.
        config: What is trained.
        reported: The paper's accuracy in percent, None where it has none.
    """

    name: str
    protocol: str
    shots: int
    method: str
    config: TrainConfig
    reported: float | None


def grid(config: GridConfig) -> None:
    """Run the cells that are not done, and print and write the table."""
    folder = pathlib.Path(config.out)
    chosen = cells(config)
    if config.dry_run:
        lines = [
            f"{'done ' if (folder / cell.name / 'summary.json').exists() else 'to do'}  {cell.name}" for cell in chosen
        ]
        sys.stdout.write("\n".join([*lines, f"{len(chosen)} cells in {folder}"]) + "\n")
        return
    rows, failed = [], []
    for number, cell in enumerate(chosen, 1):
        sys.stderr.write(f"cell {number} of {len(chosen)}: {cell.name}\n")
        try:
            rows.append(row(cell, run_cell(cell.config, folder / cell.name)))
        except UserError as error:
            failed.append(f"{cell.name}: {error}")
        write_json(folder / "table.json", rows)
    sys.stdout.write(markdown(rows))
    if failed:
        raise UserError(f"{len(failed)} of {len(chosen)} cells failed. {'; '.join(failed)}")


def cells(config: GridConfig) -> list[Cell]:
    """Every cell of the grid, protocol by protocol."""
    sources = {"mini": config.mini, "cub": config.cub, "sun": config.sun}
    if config.data:
        protocols = {config.data: (config.data, "")}
    else:
        protocols = {
            name: (sources[base], sources[target] if target else "")
            for name, (base, target) in PROTOCOLS.items()
            if name in config.protocols
        }
    return [
        _cell(config, name, data, target, shots, method)
        for name, (data, target) in protocols.items()
        for shots in config.shots
        for method in config.methods
    ]


def _cell(config: GridConfig, protocol: str, data: str, target: str, shots: int, method: str) -> Cell:
    base = TrainConfig.PRESETS["quick" if config.data and config.preset == "paper" else config.preset]
    changes: dict[str, Any] = {name: getattr(config, name) for name in ("epochs", "steps") if getattr(config, name)}
    if base.preset == "paper" and method == "maml":
        changes["inner.steps"] = 5  # that of Chen et al. 2019; the paper's one step is of its equation 4
    if not config.data:
        environments = len(base.changed(method=method).training_environments.split(","))  # "none" is one
        changes["queries"] = min(base.queries, SMALLEST[PROTOCOLS[protocol][0]] // environments - shots)
    trained = base.changed(
        method=method,
        data=data,
        target=target,
        shots=shots,
        seed=config.seed,
        data_root=config.data_root,
        device=config.device,
        download=config.download,
        progress=config.progress,
        test_episodes=config.episodes,
        **changes,
    )
    name = f"{protocol.replace(':', '-').replace('/', '-')}-{shots}shot-{method}-seed{config.seed}"
    reported = None if config.data else REPORTED.get((protocol, shots), {}).get(method)
    return Cell(name, protocol, shots, method, trained, reported)


def run_cell(config: TrainConfig, folder: pathlib.Path) -> dict[str, Any]:
    """The summary of a training in `folder`: read where it is done, else begun or gone on with.

    Epochs are shown by a progress bar unless the configuration says no.

    Raises:
        UserError: The folder holds a run of another configuration.
    """
    from rml_meta.cli.train import train

    done = folder / "summary.json"
    if not done.exists():
        train(config.changed(out=str(folder), resume=(folder / "config.json").exists()))
    return json.loads(done.read_text(encoding="utf-8"))


def row(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """A line of the table, in percent."""
    found = result["novel"]
    return {
        "protocol": cell.protocol,
        "shots": cell.shots,
        "method": cell.method,
        "accuracy": round(100 * found["accuracy"], 2),
        "interval": round(100 * found["interval"], 2),
        "transductive": found["transductive"],
        "queries": cell.config.queries,
        "reported": cell.reported,
    }


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table: a column of measured and one of reported accuracies a protocol and number of shots."""
    rows = list(rows)
    columns = list(dict.fromkeys((r["protocol"], r["shots"]) for r in rows))
    found = {(r["protocol"], r["shots"], r["method"]): r for r in rows}
    heads = [f"{protocol} {shots}-shot{kind}" for protocol, shots in columns for kind in ("", ", reported")]
    lines = ["| method | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    for method in dict.fromkeys(r["method"] for r in rows):
        cells_of = [text for at in columns for text in _texts(found.get((*at, method)))]
        lines.append(f"| {method} | " + " | ".join(cells_of) + " |")
    return "\n".join(lines) + "\n"


def _texts(found: dict[str, Any] | None) -> Sequence[str]:
    if found is None:
        return "", ""
    reported = found["reported"]
    return f"{found['accuracy']:.2f} ± {found['interval']:.2f}", "" if reported is None else f"{reported:.2f}"
