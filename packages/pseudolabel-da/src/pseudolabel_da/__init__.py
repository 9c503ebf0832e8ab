"""Incremental pseudo-labelling that adapts any classifier to a new domain.

Everything below is imported on first use, and imports torch only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel_da.adversarial import DomainHead, domain_loss, reverse_gradient
    from pseudolabel_da.alerts import CollapseWarning, PseudoLabelWarning, StalledWarning
    from pseudolabel_da.alignment import CoralLoss, coral_loss
    from pseudolabel_da.augmentation import strong_augment
    from pseudolabel_da.batch_norm import frozen_batch_norm, reestimate_batch_norm
    from pseudolabel_da.calibration import expected_calibration_error, fit_temperature
    from pseudolabel_da.diagnostics import CollapseLimits, PeriodRecord, Verdict, diagnose
    from pseudolabel_da.flexible import FlexThreshold, flexible_thresholds
    from pseudolabel_da.ican import ICANSelector
    from pseudolabel_da.labeler import IncrementalPseudoLabeler
    from pseudolabel_da.objective import AdaptationLoss, Labeled
    from pseudolabel_da.periods import PeriodContext, advance
    from pseudolabel_da.planning import plan_epoch
    from pseudolabel_da.pool import PseudoLabelPool
    from pseudolabel_da.prediction import binary_logits, predict_logits
    from pseudolabel_da.schedules import LeeSchedule, lee_weight, reversal_strength
    from pseudolabel_da.selection import AdaptiveThreshold, FixedThreshold, Selection, Selector, select_above
    from pseudolabel_da.settings import Settings
    from pseudolabel_da.shares import ClassBalancedShare, TopShare, select_top
    from pseudolabel_da.state import FitResult
    from pseudolabel_da.stratified import StratifiedSample, stratified_sample
    from pseudolabel_da.thresholds import adaptive_threshold, confidence_ceiling
    from pseudolabel_da.validators import (
        TARGET_VALIDATORS,
        information_maximization,
        mean_entropy,
        soft_neighborhood_density,
    )

__version__ = "0.1.0"

_ROOMS = {
    "adversarial": ["DomainHead", "domain_loss", "reverse_gradient"],
    "alerts": ["CollapseWarning", "PseudoLabelWarning", "StalledWarning"],
    "alignment": ["CoralLoss", "coral_loss"],
    "augmentation": ["strong_augment"],
    "batch_norm": ["frozen_batch_norm", "reestimate_batch_norm"],
    "calibration": ["expected_calibration_error", "fit_temperature"],
    "diagnostics": ["CollapseLimits", "PeriodRecord", "Verdict", "diagnose"],
    "flexible": ["FlexThreshold", "flexible_thresholds"],
    "ican": ["ICANSelector"],
    "labeler": ["IncrementalPseudoLabeler"],
    "objective": ["AdaptationLoss", "Labeled"],
    "periods": ["PeriodContext", "advance"],
    "planning": ["plan_epoch"],
    "pool": ["PseudoLabelPool"],
    "prediction": ["binary_logits", "predict_logits"],
    "schedules": ["LeeSchedule", "lee_weight", "reversal_strength"],
    "selection": ["AdaptiveThreshold", "FixedThreshold", "Selection", "Selector", "select_above"],
    "settings": ["Settings"],
    "shares": ["ClassBalancedShare", "TopShare", "select_top"],
    "state": ["FitResult"],
    "stratified": ["StratifiedSample", "stratified_sample"],
    "thresholds": ["adaptive_threshold", "confidence_ceiling"],
    "validators": ["TARGET_VALIDATORS", "information_maximization", "mean_entropy", "soft_neighborhood_density"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "TARGET_VALIDATORS",
    "AdaptationLoss",
    "AdaptiveThreshold",
    "ClassBalancedShare",
    "CollapseLimits",
    "CollapseWarning",
    "CoralLoss",
    "DomainHead",
    "FitResult",
    "FixedThreshold",
    "FlexThreshold",
    "ICANSelector",
    "IncrementalPseudoLabeler",
    "Labeled",
    "LeeSchedule",
    "PeriodContext",
    "PeriodRecord",
    "PseudoLabelPool",
    "PseudoLabelWarning",
    "Selection",
    "Selector",
    "Settings",
    "StalledWarning",
    "StratifiedSample",
    "TopShare",
    "Verdict",
    "adaptive_threshold",
    "advance",
    "binary_logits",
    "confidence_ceiling",
    "coral_loss",
    "diagnose",
    "domain_loss",
    "expected_calibration_error",
    "fit_temperature",
    "flexible_thresholds",
    "frozen_batch_norm",
    "information_maximization",
    "lee_weight",
    "mean_entropy",
    "plan_epoch",
    "predict_logits",
    "reestimate_batch_norm",
    "reversal_strength",
    "reverse_gradient",
    "select_above",
    "select_top",
    "soft_neighborhood_density",
    "stratified_sample",
    "strong_augment",
]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"pseudolabel_da.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'pseudolabel_da' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
