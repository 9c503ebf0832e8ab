"""The losses that are considered for a training set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fdiv_noisy.estimation import NoiseReport
from fdiv_noisy.losses.f_divergence import FDivergenceLoss
from fdiv_noisy.losses.forward import ForwardCorrection
from fdiv_noisy.losses.gce import GCELoss
from fdiv_noisy.losses.pair_conditional import PairConditionalLoss, weight_for

PLAIN = ("ce", "gce", "kl")
"""Those that need to know nothing of the noise, the simplest first."""

LEAST_CONDITION = 0.1  # smallest singular value of a transition matrix that is worth inverting

Make = Callable[[], nn.Module]


def candidates(report: NoiseReport, prior: Tensor, seen: int) -> dict[str, Make]:
    """Makers of the losses for the noise of `report`, by name; the plain ones first.

    A correction is among them only where the report is sure of a structure and its matrix can be inverted.

    Args:
        report: What was found in the labels.
        prior: (K,) shares of the noisy labels.
        seen: Samples that the whole training will see, repeats included.
    """
    made: dict[str, Make] = {
        "ce": nn.CrossEntropyLoss,
        "gce": GCELoss,
        "kl": lambda: FDivergenceLoss("kl", product="exact", prior=prior),
    }
    if len(report.pairs):
        made["pair-conditional"] = lambda: PairConditionalLoss(report.pairs, prior, weight_for(seen))
    if report.structure not in ("clean", "uniform", "undecided") and well_conditioned(report.matrix()):
        made["forward"] = lambda: ForwardCorrection(report.matrix())
        made["kl corrected"] = lambda: FDivergenceLoss("kl", product="exact", prior=prior, transition=report.transition)
    return made


def well_conditioned(matrix: Tensor) -> bool:
    """Whether a transition matrix (K, K) can be inverted without blowing up what it rests on."""
    return float(torch.linalg.svdvals(matrix.double())[-1]) >= LEAST_CONDITION
