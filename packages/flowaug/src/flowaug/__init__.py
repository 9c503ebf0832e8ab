"""Per-image augmentation distributions from conditional normalizing flows.

Everything below is imported on first use: torch and normflows for the flows, kornia for colour only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowaug.augmenter import Augmenter, AugOutput, FlowAugmenter
    from flowaug.baselines import (
        AugerinoAugmenter,
        LocationRelationAugmenter,
        MeanFieldAugmenter,
        PolicyAugmenter,
        PSTNAugmenter,
    )
    from flowaug.classifier import AugmentedClassifier
    from flowaug.entropy_control import EntropyController, PIDEntropyController
    from flowaug.flows import ConditionalFlow, FlowSpec
    from flowaug.objective import AugLoss, classifier_loss, flow_aug_loss, mean_log_probability
    from flowaug.pose_alignment import Alignment
    from flowaug.spaces import AffineSpace, ColorSpace, CropSpace
    from flowaug.targets import motion_matrices, unwarp, warp_boxes, warp_masks, warp_points

__version__ = "0.1.0"

_ROOMS = {
    "augmenter": ["AugOutput", "Augmenter", "FlowAugmenter"],
    "baselines": [
        "AugerinoAugmenter",
        "LocationRelationAugmenter",
        "MeanFieldAugmenter",
        "PSTNAugmenter",
        "PolicyAugmenter",
    ],
    "classifier": ["AugmentedClassifier"],
    "entropy_control": ["EntropyController", "PIDEntropyController"],
    "flows": ["ConditionalFlow", "FlowSpec"],
    "objective": ["AugLoss", "classifier_loss", "flow_aug_loss", "mean_log_probability"],
    "pose_alignment": ["Alignment"],
    "spaces": ["AffineSpace", "ColorSpace", "CropSpace"],
    "targets": ["motion_matrices", "unwarp", "warp_boxes", "warp_masks", "warp_points"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AffineSpace",
    "Alignment",
    "AugLoss",
    "AugOutput",
    "AugerinoAugmenter",
    "AugmentedClassifier",
    "Augmenter",
    "ColorSpace",
    "ConditionalFlow",
    "CropSpace",
    "EntropyController",
    "FlowAugmenter",
    "FlowSpec",
    "LocationRelationAugmenter",
    "MeanFieldAugmenter",
    "PIDEntropyController",
    "PSTNAugmenter",
    "PolicyAugmenter",
    "classifier_loss",
    "flow_aug_loss",
    "mean_log_probability",
    "motion_matrices",
    "unwarp",
    "warp_boxes",
    "warp_masks",
    "warp_points",
]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"flowaug.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'flowaug' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
