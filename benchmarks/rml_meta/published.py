"""Reptile and the LSTM meta-learner with the settings of their published runs, until a core's time is spent."""

from __future__ import annotations

import json
from typing import Any

from rml_meta.cli.recipes import TrainConfig

from benchmarks.common import data_root, save
from benchmarks.rml_meta._cells import cell, folder_of
from benchmarks.rml_meta.omniglot import percent

QUESTION = "How far do Reptile and the LSTM meta-learner come with their published settings?"
LONG = True
BASE = TrainConfig.PRESETS["omniglot"].changed(test_queries=5, val_episodes=50, steps=150, progress=False)
# 10 images a class, in minibatches of 10; the moments of Adam are carried; the rate falls from 1 to 0
REPTILE = BASE.changed(
    method="reptile",
    network="conv4_strided",
    rotations=True,
    tasks=5,
    reptile_steps=5,
    reptile_test_steps=50,
)
# one task a step; the channels are fewer than published, for the rule works on every weight by itself
META_LSTM = BASE.changed(method="metalstm", hidden=16, tasks=1, queries=15, lr=1e-3, clip_norm=0.25)
RUNS: dict[str, TrainConfig] = {
    "reptile, 1 shot": REPTILE.changed(queries=9, epochs=60),
    "metalstm, 1 shot": META_LSTM.changed(lstm_steps=12, epochs=50),
    "reptile, 5 shots": REPTILE.changed(shots=5, queries=5, epochs=40),
    "metalstm, 5 shots": META_LSTM.changed(shots=5, lstm_steps=8, epochs=30),
}


def curve(config: TrainConfig) -> list[dict[str, float]]:
    """Validation accuracy after each epoch."""
    lines = (folder_of(config) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{"epoch": r["epoch"], "accuracy": r["val_accuracy"]} for r in map(json.loads, lines) if "val_accuracy" in r]


def main(names: tuple[str, ...] = tuple(RUNS)) -> None:
    """Train, and write the table and the curves."""
    if data_root() is None:
        return
    rows, found = [], {}
    for name in names:
        config = RUNS[name]
        result = cell(config)
        found[name] = {"curve": curve(config), **result}
        rows.append(row(name, config, result, found[name]["curve"]))
        write(rows, found)


def write(rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """The table of the runs that are finished."""
    note = (
        "accuracy on 659 novel Omniglot characters with its 95 % interval over 600 tasks of 5 ways and 5 queries a "
        "class; a validation of 50 tasks after every 150 steps chooses the epoch; 28x28; one seed"
    )
    save(__file__, QUESTION, rows, note=note, runs=found)


def row(name: str, config: TrainConfig, result: dict[str, Any], curve: list[dict[str, float]]) -> dict[str, Any]:
    """What a run came to, and whether it had become flat."""
    half = [point["accuracy"] for point in curve[len(curve) // 2 :]]
    return {
        "method": name,
        "accuracy (%)": percent(result["novel"]),
        "training tasks": config.epochs * config.steps * config.tasks,
        "cpu s": round(result["cpu_seconds"]),
        "validation at half (%)": 100 * half[0],
        "validation at the end (%)": 100 * half[-1],
        "queries together": result["novel"]["transductive"],
    }


if __name__ == "__main__":
    main()
