"""Label noise from noisy labels alone: posteriors, structure, pairs and rates."""

from __future__ import annotations

from fdiv_noisy.estimation.anchors import anchor_points
from fdiv_noisy.estimation.confident import ConfidentJoint, confident_joint
from fdiv_noisy.estimation.cross_fit import Fit, cross_fit_probabilities
from fdiv_noisy.estimation.dual import dual_t
from fdiv_noisy.estimation.issues import LabelIssues, label_issues
from fdiv_noisy.estimation.neighbours import PairRates, pair_rates
from fdiv_noisy.estimation.pairs import Pairs, find_pairs
from fdiv_noisy.estimation.pipeline import estimate
from fdiv_noisy.estimation.report import NoiseReport
from fdiv_noisy.estimation.sets import AnchorSets, anchor_sets
from fdiv_noisy.estimation.structure import select_structure

__all__ = [
    "AnchorSets",
    "ConfidentJoint",
    "Fit",
    "LabelIssues",
    "NoiseReport",
    "PairRates",
    "Pairs",
    "anchor_points",
    "anchor_sets",
    "confident_joint",
    "cross_fit_probabilities",
    "dual_t",
    "estimate",
    "find_pairs",
    "label_issues",
    "pair_rates",
    "select_structure",
]
