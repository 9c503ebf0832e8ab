"""`rml-meta evaluate`: a trained method on novel classes, of its own data or of another set."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from robustvision_core.data import EpisodeSampler
from robustvision_core.errors import UserError
from robustvision_core.run.files import write_json
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime

from rml_meta.cli.class_split import load
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.learners import build
from rml_meta.cli.recipes import TrainConfig
from rml_meta.evaluation import FewShotAccuracy, evaluate_episodes
from rml_meta.methods import FewShotMethod


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained method on novel classes."""

    run: str
    """Run folder that training wrote."""
    which: Literal["best", "checkpoint"] = "best"
    """best (the epoch that validation chose) or checkpoint (the last one)."""
    data: str = ""
    """Novel classes of this set (cross-domain); empty takes those of the run."""
    part: Literal["novel", "val"] = "novel"
    """Which classes."""
    shots: int = 0
    """Support images a class; 0 is as in training."""
    episodes: int = 600
    """Tasks."""
    episode_seed: int = 0
    """Draws them: the same for every method."""
    environments: str = ""
    """How the tasks look, as --test-environments of train; empty is as in its test."""
    correlations: tuple[float, ...] = ()
    """Of label and colour; empty is as in its test."""
    transductive: bool | None = None
    """Normalise query images together; None is as in training."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Write the result with every task's accuracy as JSON here."""

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.shots < 0:
            raise UserError(f"episodes must be at least 2 and shots 0 or more, got {self.episodes} and {self.shots}")

    def apply(self, stored: TrainConfig) -> TrainConfig:
        """The run's configuration with what is asked for here."""
        asked: dict[str, Any] = {
            "target": self.data,
            "shots": self.shots,
            "test_environments": self.environments,
            "test_correlations": self.correlations,
        }
        here = {"data_root": self.data_root, "device": self.device, "resume": False, "episode_seed": self.episode_seed}
        counts = {"val_episodes": self.episodes, "test_episodes": self.episodes}
        return replace(stored, **here, **counts, **{name: value for name, value in asked.items() if value})


def evaluate(config: EvaluateConfig) -> None:
    """Print the accuracy and its interval."""
    stored = read_config(config.run, TrainConfig, "rml-meta train")
    asked = config.apply(stored)
    with Runtime.session(asked.device, asked.precision, asked.seed) as runtime:
        split = load(asked)
        method = build(asked, split.channels, split.base.num_classes).to(runtime.device)
        load_part(method, pathlib.Path(config.run) / f"{config.which}.pt", "method")
        tasks = held_out_tasks(asked, split, config.part, runtime, correlations=asked.test_correlations)
        found = accuracy_on(method, tasks, runtime, config.transductive)
    sys.stdout.write(f"{config.part} classes of {asked.target or asked.data}: {found}\n")
    if config.out:
        write_json(config.out, summarise(found) | {"per_episode": found.per_episode.tolist(), "run": config.run})


def accuracy_on(
    method: FewShotMethod, tasks: EpisodeSampler, runtime: Runtime, transductive: bool | None = None
) -> FewShotAccuracy:
    """Accuracy over all tasks of a sampler, in the precision of the run."""
    with runtime.autocast():
        return evaluate_episodes(method, tasks.epoch(0), transductive=transductive)


def summarise(found: FewShotAccuracy) -> dict[str, Any]:
    """Plain values of an accuracy."""
    return {
        "accuracy": found.mean,
        "interval": found.interval,
        "episodes": len(found.per_episode),
        "transductive": found.transductive,
        "text": str(found),
    }
