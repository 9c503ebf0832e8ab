"""How good a method is: accuracy over episodes with its confidence interval, and features computed once."""

from __future__ import annotations

from rml_meta.evaluation.accuracy import FewShotAccuracy, evaluate_episodes
from rml_meta.evaluation.features import FeatureCache
from rml_meta.evaluation.gradients import MetaGradientError, check_meta_gradient
from rml_meta.evaluation.inspection import EnvironmentReport, inspect_environments
from rml_meta.evaluation.intervals import mean_interval, student_t_quantile

__all__ = [
    "EnvironmentReport",
    "FeatureCache",
    "FewShotAccuracy",
    "MetaGradientError",
    "check_meta_gradient",
    "evaluate_episodes",
    "inspect_environments",
    "mean_interval",
    "student_t_quantile",
]
