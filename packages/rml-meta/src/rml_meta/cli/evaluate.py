"""`rml-meta evaluate`: a trained method on novel classes, of its own data or of another set."""

from __future__ import annotations

import sys
from typing import Any

from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import read_config
from robustvision_core.run.runtime import Runtime

from rml_meta.cli.class_split import comes_in_one_part, load
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.learners import build
from rml_meta.cli.options import EvaluateConfig
from rml_meta.cli.recipes import HEADED, TrainConfig
from rml_meta.cli.scoring import accuracy_on, summarise


def evaluate(config: EvaluateConfig) -> None:
    """Print the accuracy and its interval."""
    stored = read_config(config.run, TrainConfig, "rml-meta train")
    asked = asked_of(config, stored)
    with Runtime.session(asked.device, asked.precision, asked.seed) as runtime:
        part = part_of(config, stored, asked)
        split = load(asked, whole=part == "all")
        method = build(asked.changed(weights=""), split.channels, split.base.num_classes).to(runtime.device)
        config.load_into(method, "method")
        correlations = asked.environments.test_correlations
        tasks = held_out_tasks(asked, split, "val" if part == "val" else "novel", runtime, correlations=correlations)
        found = accuracy_on(method, tasks, runtime, config.transductive)
    which = f"all {split.novel.num_classes}" if part == "all" else part
    sys.stdout.write(f"{which} classes of {asked.target or asked.data}: {found}\n")
    if config.out:
        write_json(config.out, summarise(found) | {"per_episode": found.per_episode.tolist(), "run": config.run})


def part_of(config: EvaluateConfig, stored: TrainConfig, asked: TrainConfig) -> str:
    """Which classes: novel, val or all.

    Raises:
        UserError: All are asked for of the set that was trained on.
    """
    other = config.data and config.data not in (stored.data, stored.target)
    if config.part == "all" and not other:
        raise UserError("--part all is for another set, as --data folder:PATH: base classes of the run were trained on")
    if config.part != "auto":
        return config.part
    where = (config.data, asked.image.size, asked.data_root, asked.download)
    return "all" if other and comes_in_one_part(*where) else "novel"


def asked_of(config: EvaluateConfig, stored: TrainConfig) -> TrainConfig:
    """A run's configuration with what is asked for in its evaluation."""
    if config.ways not in (0, stored.ways) and stored.method in HEADED:
        raise UserError(
            f"{stored.method} was trained for {stored.ways} classes a task and cannot change: leave --ways away"
        )
    asked: dict[str, Any] = {
        "target": config.data,
        "shots": config.shots,
        "ways": config.ways,
        "environments.test": config.environments,
        "environments.test_correlations": config.correlations,
    }
    here = {"data_root": config.data_root, "device": config.device, "download": config.download, "resume": False}
    tasks = {
        "test.episode_seed": config.episode_seed,
        "test.val_episodes": config.episodes,
        "test.episodes": config.episodes,
    }
    return stored.changed(**here, **tasks, **{name: value for name, value in asked.items() if value})
