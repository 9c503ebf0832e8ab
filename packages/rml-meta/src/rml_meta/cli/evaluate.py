"""`rml-meta evaluate`: a trained method on novel classes, of its own data or of another set."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from robustvision_core.run.files import write_json
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime

from rml_meta.cli.class_split import load
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.learners import build
from rml_meta.cli.options import EvaluateConfig
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.scoring import accuracy_on, summarise


def evaluate(config: EvaluateConfig) -> None:
    """Print the accuracy and its interval."""
    asked = asked_of(config, read_config(config.run, TrainConfig, "rml-meta train"))
    with Runtime.session(asked.device, asked.precision, asked.seed) as runtime:
        split = load(asked)
        method = build(asked, split.channels, split.base.num_classes).to(runtime.device)
        load_part(method, pathlib.Path(config.run) / f"{config.which}.pt", "method")
        correlations = asked.environments.test_correlations
        tasks = held_out_tasks(asked, split, config.part, runtime, correlations=correlations)
        found = accuracy_on(method, tasks, runtime, config.transductive)
    sys.stdout.write(f"{config.part} classes of {asked.target or asked.data}: {found}\n")
    if config.out:
        write_json(config.out, summarise(found) | {"per_episode": found.per_episode.tolist(), "run": config.run})


def asked_of(config: EvaluateConfig, stored: TrainConfig) -> TrainConfig:
    """A run's configuration with what is asked for in its evaluation."""
    asked: dict[str, Any] = {
        "target": config.data,
        "shots": config.shots,
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
