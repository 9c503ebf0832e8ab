"""What is optimised: the losses of classifier and augmenter, and the price of entropy between them."""

from __future__ import annotations

from flowaug.objective.entropy_control import EntropyController, PIDEntropyController
from flowaug.objective.losses import (
    AGGREGATES,
    Aggregate,
    AugLoss,
    check_aggregate,
    check_alpha,
    classifier_loss,
    flow_aug_loss,
    mean_log_probability,
    mean_views,
    score_function_loss,
)

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "AugLoss",
    "EntropyController",
    "PIDEntropyController",
    "check_aggregate",
    "check_alpha",
    "classifier_loss",
    "flow_aug_loss",
    "mean_log_probability",
    "mean_views",
    "score_function_loss",
]
