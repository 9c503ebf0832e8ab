"""The loss that a configuration asks for."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.errors import UserError
from torch import Tensor, nn

from fdiv_noisy import rivals
from fdiv_noisy.auto import choose_loss
from fdiv_noisy.divergences import DIVERGENCES
from fdiv_noisy.estimation import NoiseReport, estimate
from fdiv_noisy.labels import class_prior
from fdiv_noisy.losses import FDivergenceLoss
from fdiv_noisy.noise import NoiseSummary, describe
from fdiv_noisy.noisy_set import NoisySet
from fdiv_noisy.pair_conditional import PairConditionalLoss
from fdiv_noisy.recipes import TrainConfig
from fdiv_noisy.schedules import WarmUp
from fdiv_noisy.transition import Transition, check_matrix, fit_sparse, fit_uniform

PLAIN = {
    "ce": nn.CrossEntropyLoss,
    "gce": rivals.GCELoss,
    "sce": rivals.SCELoss,
    "mae": rivals.MAELoss,
    "nce-rce": rivals.NCERCELoss,
    "peer": rivals.PeerLoss,
    "dmi": rivals.DMILoss,
}
STRUCTURE_FITS = 0.1  # largest misfit of a uniform or sparse model, relative to the off-diagonal mass
CORRECTED = {"forward": rivals.ForwardCorrection, "backward": rivals.BackwardCorrection}


def build(config: TrainConfig, noisy: NoisySet) -> tuple[WarmUp, NoiseReport | None]:
    """The criterion, and what was found in the labels where they were examined.

    Raises:
        UserError: The loss cannot be had with this correction.
    """
    report = examine(config, noisy)
    prior = class_prior(noisy.train.labels, noisy.num_classes)
    if config.loss == "auto":
        assert report is not None
        return choose_loss(report, prior, warmup=max(config.warmup, 1)), report
    transition = _transition(config, noisy, report)
    warmup = config.warmup
    if config.loss in DIVERGENCES:
        criterion: nn.Module = FDivergenceLoss(
            config.loss, config.product, prior if config.product == "exact" else None, transition=transition
        )
    elif config.loss == "pair-conditional":
        assert report is not None
        if len(report.pairs) == 0:
            raise UserError(f"pair-conditional needs labels that flip in pairs, but the noise looks {report.structure}")
        criterion, warmup = PairConditionalLoss(report.pairs, prior), max(warmup, 1)
    elif config.loss in CORRECTED:
        assert transition is not None
        criterion = CORRECTED[config.loss](transition)
    else:
        criterion = PLAIN[config.loss]()
    return WarmUp(nn.CrossEntropyLoss(), criterion, warmup), report


def examine(config: TrainConfig, noisy: NoisySet) -> NoiseReport | None:
    """What the noisy labels alone say of their noise, where the loss needs it."""
    needs_report = config.loss in ("auto", "pair-conditional")
    needs_transition = config.correction == "estimate" or (config.loss in CORRECTED and config.correction == "none")
    if not needs_report and not needs_transition:
        return None
    train = noisy.in_memory()
    return estimate(train.images, train.labels, train.num_classes, refine=needs_transition, seed=config.seed)


def _transition(config: TrainConfig, noisy: NoisySet, report: NoiseReport | None) -> Transition | None:
    if report is not None and config.loss != "pair-conditional":
        return report.transition
    if config.correction in ("none", "estimate"):
        return None
    if config.correction == "true":
        if noisy.clean is None:
            raise UserError(f"--correction true needs clean labels, and {config.data} has none")
        return _structured(describe(noisy.train.labels, noisy.clean, noisy.num_classes))
    return _read_matrix(config.correction, noisy.num_classes)


def _structured(found: NoiseSummary) -> Transition:
    """The noise as the model that fits it, which corrects with less variance than the plain matrix."""
    assert found.transition is not None
    assert found.pairs is not None
    uniform, uniform_residual = fit_uniform(found.transition)
    if uniform_residual < STRUCTURE_FITS:
        return uniform
    sparse, sparse_residual = fit_sparse(found.transition, found.pairs)
    return sparse if sparse_residual < STRUCTURE_FITS else found.transition


def _read_matrix(path: str, num_classes: int) -> Tensor:
    if not pathlib.Path(path).is_file():
        raise UserError(f"--correction {path}: expected none, estimate, true or the path of a matrix, and no such file")
    try:
        if path.endswith(".npy"):
            import numpy

            matrix = torch.from_numpy(numpy.load(path, allow_pickle=False)).float()
        else:
            matrix = torch.load(path, map_location="cpu", weights_only=True).float()
        check_matrix(matrix)
    except Exception as error:
        raise UserError(f"--correction {path} holds no transition matrix: {error}") from error
    if len(matrix) != num_classes:
        raise UserError(f"--correction {path} has {len(matrix)} classes, the data {num_classes}")
    return matrix
