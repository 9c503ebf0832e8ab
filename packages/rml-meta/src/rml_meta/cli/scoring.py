"""What training and evaluation both say of a method."""

from __future__ import annotations

from typing import Any

from robustvision_core.data import EpisodeSampler
from robustvision_core.run.runtime import Runtime

from rml_meta.evaluation import FewShotAccuracy, evaluate_episodes
from rml_meta.methods import FewShotMethod


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
