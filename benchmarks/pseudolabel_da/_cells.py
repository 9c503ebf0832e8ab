"""Training runs as cells of a table: each is a run folder, so that a stopped table goes on within the epoch."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pseudolabel_da.cli.data import AdaptationData, deal, load_pair
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.testing import confusion_on, make_reader
from pseudolabel_da.cli.train import fit_on, new_step, report
from pseudolabel_da.seeds import make_generator
from robustvision_core.config import RUN_FIELDS
from robustvision_core.data import DomainPair
from robustvision_core.run.files import write_json
from robustvision_core.run.metrics import accuracy
from robustvision_core.run.runtime import Runtime

from benchmarks.common import mean_and_spread

DONE = pathlib.Path("runs/benchmarks/pseudolabel_da")
PAIR_FIELDS = ("data", "protocol", "image_size", "data_seed", "data_root")
# what the first phase depends on
STARTS_WITH = (
    *PAIR_FIELDS, "source_size", "target_size", "target_imbalance", "labelled", "source_augment", "network", "weights",
    "standardise", "pretrain", "batch_size", "lr", "anneal", "weight_decay", "pretrain_label_smoothing", "seed",
    "device", "precision",
)  # fmt: skip


def start_of(config: TrainConfig) -> TrainConfig:
    """The run that is the first phase of `config`, and of every other with the same labelled samples."""
    plain = TrainConfig(method="source", epochs=0).changed(batch_norm="shared")
    held = config.flat()
    return plain.changed(**{name: held[name] for name in STARTS_WITH})


def after(config: TrainConfig) -> TrainConfig:
    """`config` without its first phase, from the weights of `start_of` it, which is run if it has not been."""
    start = start_of(config)
    run_cell(start)
    return config.changed(pretrain=0, init=str(folder_of(start) / "checkpoint.pt"))


def folder_of(config: TrainConfig) -> pathlib.Path:
    """Where the run of `config` lives: the same for configurations that compute the same."""
    fields = {name: value for name, value in config.flat().items() if name not in RUN_FIELDS | {"preset"}}
    key = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return DONE / f"{config.data.replace(':', '_').replace('/', '_')}-{config.method}-{config.seed}-{key}"


def run_cell(config: TrainConfig) -> dict[str, Any]:
    """Train once and test the last epoch; nothing is chosen by target labels."""
    folder = folder_of(config)
    done = folder / "cell.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    started = time.perf_counter()
    config = config.changed(out=str(folder), resume=(folder / "config.json").exists(), progress=False)
    data = deal(config, _pair(*(config.flat()[name] for name in PAIR_FIELDS)))
    with Runtime.session(config.device, config.precision, config.seed) as runtime:
        run = config.open_run("cell", runtime)
        step = new_step(config, data, runtime)
        fit_on(config, data, runtime, run, step)
        result = report(config, data, runtime, step)[1]
        if config.method == "source":
            result["target statistics"] = _with_target_statistics(config, data, runtime, step.network)
    result |= {"config": config.flat(), "seconds": time.perf_counter() - started}
    write_json(done, result)
    print(f"{folder.name}: {result['final']['target']['accuracy']:.2%} in {result['seconds']:.0f} s", flush=True)
    return result


def _with_target_statistics(
    config: TrainConfig, data: AdaptationData, runtime: Runtime, network: torch.nn.Module
) -> float:
    """Accuracy on the target of the same weights with batch norm estimated on unlabelled target samples."""
    reader = make_reader(network, runtime)
    reader.estimate_statistics(data.target, 20, make_generator(config.seed, "statistics"))
    assert data.target_test is not None  # the sets of these tables have labels
    return accuracy(confusion_on(reader, data.target_test))


@functools.lru_cache(maxsize=2)
def _pair(*values: Any) -> DomainPair:
    return load_pair(TrainConfig().changed(**dict(zip(PAIR_FIELDS, values, strict=True))))


def row(name: str, cells: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A row of a table: target and source accuracy, and the pseudo-labels of the first seed."""
    periods = cells[0]["periods"]
    return {
        "row": name,
        "target (%)": mean_and_spread([100 * cell["final"]["target"]["accuracy"] for cell in cells]),
        "source (%)": mean_and_spread([100 * cell["final"]["source"]["accuracy"] for cell in cells]),
        "selected": " ".join(str(record["selected"]) for record in periods),
        "wrong": " ".join(f"{record['wrong'] / max(record['selected'], 1):.3f}" for record in periods),
        "verdict": "/".join(str(cell["verdict"]) for cell in cells),
        "seconds": round(sum(cell["seconds"] for cell in cells) / len(cells)),
        **more,
    }


def slim(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What of the cells a table's JSON keeps."""
    kept = (
        "epoch",
        "selected",
        "wrong",
        "total",
        "threshold",
        "ceiling",
        "max_confidence",
        "class_histogram",
        "verdict",
    )
    return [
        {
            "config": {name: value for name, value in cell["config"].items() if name not in RUN_FIELDS},
            "target": cell["final"]["target"],
            "source accuracy": cell["final"]["source"]["accuracy"],
            "start": cell.get("start"),
            "samples": cell["samples"],
            "seconds": cell["seconds"],
            "periods": [{name: record[name] for name in kept} for record in cell["periods"]],
        }
        for cell in cells
    ]
