"""The loss that a configuration asks for."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Iterable

import torch
from robustvision_core.data import ImageSet
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn
from tqdm import tqdm

from fdiv_noisy.auto import answer
from fdiv_noisy.choice.candidates import candidates
from fdiv_noisy.choice.race import Plan, run_race
from fdiv_noisy.choice.verdict import Verdict, decide, is_settled
from fdiv_noisy.cli.classifier import new_network
from fdiv_noisy.cli.data import NoisySet
from fdiv_noisy.cli.recipes import Optimizer, TrainConfig
from fdiv_noisy.divergences import DIVERGENCES
from fdiv_noisy.estimation import NoiseReport, cross_fit_probabilities, estimate, find_pairs
from fdiv_noisy.labels import class_prior
from fdiv_noisy.losses.backward import BackwardCorrection
from fdiv_noisy.losses.dmi import DMILoss
from fdiv_noisy.losses.f_divergence import FDivergenceLoss
from fdiv_noisy.losses.forward import ForwardCorrection
from fdiv_noisy.losses.gce import GCELoss
from fdiv_noisy.losses.mae import MAELoss
from fdiv_noisy.losses.nce_rce import NCERCELoss
from fdiv_noisy.losses.pair_conditional import PairConditionalLoss, weight_for
from fdiv_noisy.losses.peer import PeerLoss
from fdiv_noisy.losses.sce import SCELoss
from fdiv_noisy.noise import NoiseSummary, describe
from fdiv_noisy.schedules import WarmUp
from fdiv_noisy.transition import Transition, as_matrix, check_matrix, fit_sparse, fit_uniform

PLAIN = {
    "ce": nn.CrossEntropyLoss,
    "gce": GCELoss,
    "sce": SCELoss,
    "mae": MAELoss,
    "nce-rce": NCERCELoss,
    "peer": PeerLoss,
    "dmi": DMILoss,
}
STRUCTURE_FITS = 0.1  # largest misfit of a uniform or sparse model, relative to the off-diagonal mass
CORRECTED = {"forward": ForwardCorrection, "backward": BackwardCorrection}


def build(config: TrainConfig, noisy: NoisySet, runtime: Runtime | None = None) -> tuple[WarmUp, NoiseReport | None]:
    """The criterion, and what was found in the labels where they were examined; every process must call it.

    Raises:
        UserError: The loss cannot be had with this correction.
    """
    report = examine(config, noisy, runtime)
    prior = class_prior(noisy.train.labels, noisy.num_classes)
    if config.loss == "auto":
        assert report is not None
        plan = make_plan(config, len(noisy.train))
        verdict = hold_race(config, noisy.in_memory(), report, plan, runtime)
        return answer(report, verdict, prior, plan=plan, warmup=warmup_epochs(config), by_steps=False)
    transition = _transition(config, noisy, report)
    if config.loss in DIVERGENCES:
        criterion: nn.Module = FDivergenceLoss(
            config.loss, config.product, prior if config.product == "exact" else None, transition=transition
        )
    elif config.loss == "pair-conditional":
        criterion = PairConditionalLoss(
            _pairs(config, transition, report), prior, weight_for(config.epochs * len(noisy.train))
        )
    elif config.loss in CORRECTED:
        assert transition is not None
        criterion = CORRECTED[config.loss](transition)
    else:
        criterion = PLAIN[config.loss]()
    return WarmUp(nn.CrossEntropyLoss(), criterion, warmup_epochs(config)), report


def warmup_epochs(config: TrainConfig) -> int:
    """Epochs of cross-entropy before the loss of `config`; auto and pair-conditional take one, if there are two."""
    least = 1 if config.loss in ("auto", "pair-conditional") and config.epochs > 1 else 0
    return max(config.warmup, least)


def check_warmup(config: TrainConfig) -> None:
    """Raise UserError where --warmup takes all epochs, unless cross-entropy is what was asked for."""
    if config.loss != "ce" and config.warmup and config.warmup >= config.epochs:
        raise UserError(
            f"{config.warmup} of {config.epochs} epochs go to cross-entropy, which leaves none for "
            f"{config.loss}: lower --warmup, raise --epochs, or ask for --loss ce"
        )


def examine(config: TrainConfig, noisy: NoisySet, runtime: Runtime | None = None) -> NoiseReport | None:
    """What the noisy labels alone say of their noise, where the loss needs it."""
    asked = config.correction == "estimate"
    by_itself = config.loss in ("auto", "pair-conditional", *CORRECTED) and config.correction == "none"
    if not asked and not by_itself:
        return None
    refine = config.loss not in ("auto", "pair-conditional")  # those need the structure, not the rates
    return find_noise(config, noisy.in_memory(), runtime, refine=refine)


def find_noise(
    config: TrainConfig, train: ImageSet, runtime: Runtime | None = None, *, refine: bool = True
) -> NoiseReport:
    """`fdiv_noisy.estimate` on `train`, with the network of `config` where the images are not grey ones for the cnn.

    With several processes each examines the labels, and that of rank 0 speaks for all.

    Raises:
        UserError: There are too few samples, or the network does not take such images.
    """
    show = config.progress and sys.stderr.isatty() and (runtime is None or runtime.is_main)
    with tqdm(desc="examining the noise", unit=" epochs", disable=not show, leave=False) as bar:

        def on_epoch(fold: int, epoch: int, loss: float) -> None:
            bar.set_postfix(network=fold + 1, loss=f"{loss:.3f}")
            bar.update()

        try:
            report = estimate(
                train.images,
                train.labels,
                train.num_classes,
                make_model=examiner(config, train, runtime),
                refine=refine,
                device=None if runtime is None else runtime.device,
                seed=config.seed,
                on_epoch=on_epoch,
                names=train.classes,
            )
        except ValueError as error:
            raise UserError(f"the noise of {config.data} cannot be found: {error}") from error
    return report if runtime is None else runtime.from_main(report)


def posteriors(config: TrainConfig, train: ImageSet, runtime: Runtime) -> Tensor:
    """Out-of-fold posteriors (N, K) of the labels, from the networks that `find_noise` trains."""
    show = config.progress and sys.stderr.isatty()
    with tqdm(desc="learning the labels", unit=" epochs", disable=not show, leave=False) as bar:
        try:
            return cross_fit_probabilities(
                train.images,
                train.labels,
                train.num_classes,
                make_model=examiner(config, train, runtime),
                device=runtime.device,
                seed=config.seed,
                on_epoch=lambda fold, epoch, loss: bar.set_postfix(network=fold + 1, epoch=epoch),
            )
        except ValueError as error:
            raise UserError(f"the labels of {config.data} cannot be judged: {error}") from error


def examiner(config: TrainConfig, train: ImageSet, runtime: Runtime | None = None) -> Callable[[], nn.Module] | None:
    """Makes the networks that examine the labels: that of `config`, or None, the small default, for grey images."""
    channels, height, _ = train.shape
    if config.network == "cnn" and channels == 1:
        return None
    make = functools.partial(new_network, config.network, channels, height, train.num_classes)
    return make if runtime is None or runtime.autocast_dtype is None else lambda: InPrecision(make(), runtime)


class InPrecision(nn.Module):
    """A network that computes in the precision of the training, with logits of full precision."""

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        super().__init__()
        self.network, self.runtime = network, runtime

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, K)."""
        with self.runtime.autocast():
            logits = self.network(images)
        return logits.float()


def make_plan(config: TrainConfig, n: int) -> Plan:
    """The training of `config` on `n` samples, for a race to imitate."""
    steps = config.epochs * -(-n // config.batch_size)
    schedule = functools.partial(make_schedule, config.optimizer)
    return Plan(steps, config.batch_size, functools.partial(make_optimizer, config.optimizer), schedule)


def make_schedule(asked: Optimizer, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate that a configuration asks for, over `steps` of whatever it is stepped by."""

    def factor(step: int) -> float:
        passed = [value for share, value in asked.lr_steps if step >= round(share * steps)]
        return passed[-1] if passed else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def make_optimizer(asked: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that a configuration asks for."""
    if asked.name == "adam":
        return torch.optim.Adam(parameters, asked.lr, weight_decay=asked.weight_decay)
    return torch.optim.SGD(parameters, asked.lr, asked.momentum, weight_decay=asked.weight_decay)


def hold_race(
    config: TrainConfig, train: ImageSet, report: NoiseReport, plan: Plan, runtime: Runtime | None = None
) -> Verdict:
    """The verdict of a race of the losses that the report allows; that of rank 0 speaks for all processes."""
    losses = candidates(report, class_prior(train.labels, train.num_classes), plan.seen(len(train)))
    show = config.progress and sys.stderr.isatty() and (runtime is None or runtime.is_main)
    with tqdm(desc="racing losses", unit=" trainings", disable=not show, leave=False) as bar:
        race = run_race(
            train.images,
            train.labels,
            train.num_classes,
            losses,
            plan=plan,
            make_model=examiner(config, train, runtime),
            device=None if runtime is None else runtime.device,
            seed=config.seed,
            on_training=bar.update,
            settled=functools.partial(is_settled, report=report),
        )
    verdict = decide(race, report)
    return verdict if runtime is None else runtime.from_main(verdict)


def _pairs(config: TrainConfig, transition: Transition | None, report: NoiseReport | None) -> Tensor:
    """The pairs (P, 2) of pair-conditional: those found in the labels, or those of the matrix that was given."""
    if report is not None:
        pairs, where = report.pairs, f"the noise looks {report.structure}"
    else:
        assert transition is not None
        pairs, where = (
            find_pairs(as_matrix(transition)).pairs,
            f"the matrix of --correction {config.correction} has none",
        )
    if len(pairs) == 0:
        raise UserError(f"pair-conditional needs labels that flip in pairs, but {where}")
    return pairs


def _transition(config: TrainConfig, noisy: NoisySet, report: NoiseReport | None) -> Transition | None:
    if report is not None:
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
