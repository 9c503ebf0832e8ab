"""Robust Meta Learning (invariant MAML) for few-shot image tasks, with its rival methods.

Everything below is imported on first use, and imports torch only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rml_meta.adaptation import adapt
    from rml_meta.environments import ColourEnvironments, TransformEnvironments, infer_environments
    from rml_meta.episode import Episode
    from rml_meta.evaluation import FewShotAccuracy, evaluate_episodes
    from rml_meta.features import FeatureCache
    from rml_meta.methods import (
        MAML,
        RML,
        Baseline,
        BaselinePP,
        FewShotMethod,
        MatchingNet,
        MetaLSTM,
        ProtoNet,
        RelationNet,
        Reptile,
    )
    from rml_meta.networks import Classifier, CosineLinear, build_backbone
    from rml_meta.penalties import irm_penalty, std_penalty, vrex_penalty

__version__ = "0.1.0"

_ROOMS = {
    "adaptation": ["adapt"],
    "environments": ["ColourEnvironments", "TransformEnvironments", "infer_environments"],
    "episode": ["Episode"],
    "evaluation": ["FewShotAccuracy", "evaluate_episodes"],
    "features": ["FeatureCache"],
    "methods": [
        "MAML",
        "RML",
        "Baseline",
        "BaselinePP",
        "FewShotMethod",
        "MatchingNet",
        "MetaLSTM",
        "ProtoNet",
        "RelationNet",
        "Reptile",
    ],
    "networks": ["Classifier", "CosineLinear", "build_backbone"],
    "penalties": ["irm_penalty", "std_penalty", "vrex_penalty"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "MAML",
    "RML",
    "Baseline",
    "BaselinePP",
    "Classifier",
    "ColourEnvironments",
    "CosineLinear",
    "Episode",
    "FeatureCache",
    "FewShotAccuracy",
    "FewShotMethod",
    "MatchingNet",
    "MetaLSTM",
    "ProtoNet",
    "RelationNet",
    "Reptile",
    "TransformEnvironments",
    "adapt",
    "build_backbone",
    "evaluate_episodes",
    "infer_environments",
    "irm_penalty",
    "std_penalty",
    "vrex_penalty",
]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"rml_meta.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'rml_meta' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
