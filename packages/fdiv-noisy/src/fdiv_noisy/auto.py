"""One call from noisy data to the loss to train with."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from torch import Tensor, nn

from fdiv_noisy.choice.candidates import candidates, well_conditioned
from fdiv_noisy.choice.race import MakeOptimizer, MakeSchedule, Plan, run_race, warmup_steps
from fdiv_noisy.choice.verdict import Verdict, decide, is_settled, truth_is_likeliest
from fdiv_noisy.estimation import NoiseReport, estimate
from fdiv_noisy.labels import class_prior
from fdiv_noisy.schedules import WarmUp


def auto_loss(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    warmup: int = 1,
    steps: int | None = None,
    batch_size: int = 128,
    make_optimizer: MakeOptimizer | None = None,
    make_schedule: MakeSchedule | None = None,
    race: bool = True,
    **options: Any,
) -> tuple[WarmUp, NoiseReport]:
    """Find the noise in a training set from its noisy labels alone and choose the loss for it.

    Cross-entropy, GCE, the KL loss and, where the noise found allows it, corrected ones race: each trains a small
    network on three quarters of the samples and is judged by the noisy labels of the rest. A loss that does not clearly
    beat a simpler one is not taken, so that cross-entropy remains where the labels are right, classes overlap, or there
    are few steps.

    Args:
        inputs: (N, ...) images or features, uint8 or float.
        labels: (N,) int64 noisy labels.
        num_classes: K.
        warmup: Epochs of cross-entropy before the loss, at least 1; with `steps` at most a fifth of them.
        steps: Steps of the whole training that is planned; the race is as long, up to 3,000. By default 20 epochs.
        batch_size: Samples a step.
        make_optimizer: From parameters to the optimizer that will be used; by default Adam at 1e-3.
        make_schedule: From that optimizer and the steps of the race to the scheduler that will be used, stepped after
            every batch, such as `lambda o, n: OneCycleLR(o, 0.1, total_steps=n)`. Losses rank otherwise without it.
        race: False takes the loss by the structure of the noise alone (`choose_loss`), which costs no training.
        options: Those of `fdiv_noisy.estimate`, such as `probs`, `make_model` or `seed`.

    Returns:
        The loss, which counts the labels or steps to end its warm-up by itself, and the report of what was found, which
        prints readably, with the table of the race.

    Raises:
        ValueError: An option, a shape or a label is wrong.

    Example:
        >>> criterion, report = auto_loss(images, labels, 10)  # doctest: +SKIP
    """
    check_warmup(warmup)
    plan = Plan(steps, batch_size, make_optimizer, make_schedule)
    report = estimate(inputs, labels, num_classes, refine=False, **options)
    prior = class_prior(labels, num_classes)
    if not race:
        return choose_loss(report, prior, warmup=warmup), report
    same = {name: options[name] for name in ("make_model", "device", "seed") if name in options}
    race_run = run_race(
        inputs,
        labels,
        num_classes,
        candidates(report, prior, plan.seen(report.n)),
        plan=plan,
        settled=functools.partial(is_settled, report=report),
        **same,
    )
    return answer(report, decide(race_run, report), prior, plan=plan, warmup=warmup)


def answer(
    report: NoiseReport, verdict: Verdict, prior: Tensor, *, plan: Plan, warmup: int = 1, by_steps: bool = True
) -> tuple[WarmUp, NoiseReport]:
    """The loss of a verdict after its warm-up, and the report with the table of the race.

    Without `by_steps` the warm-up counts epochs, as training says them.
    """
    criterion = candidates(report, prior, plan.seen(report.n))[verdict.name]()
    plan = plan if by_steps else dataclasses.replace(plan, steps=None)
    return _warmed(criterion, warmup, plan, report.n), dataclasses.replace(report, choice=str(verdict))


def choose_loss(report: NoiseReport, prior: Tensor, *, warmup: int = 1) -> WarmUp:
    """The loss for the noise of a report, without a race, after `warmup` epochs of cross-entropy.

    Noise in pairs where a class has another label more often than its own takes `PairConditionalLoss`, which needs the
    pairs only, and so do pairs alone. General noise takes the KL loss corrected for the estimated matrix, if that can
    be inverted. Clean and undecided labels take cross-entropy. All else takes the KL loss with its exact product,
    uncorrected: it is nearly robust by itself, and an estimate from few labels costs more than the correction gains.

    Args:
        report: What `fdiv_noisy.estimate` found.
        prior: (K,) shares of the noisy labels.
        warmup: Epochs of cross-entropy, at least 1.

    Raises:
        ValueError: `warmup` is below 1.
    """
    check_warmup(warmup)
    losses = candidates(report, prior, Plan().seen(report.n))
    return _warmed(losses[_by_structure(report)](), warmup, Plan(), report.n)


def check_warmup(warmup: int) -> None:
    """Raise ValueError where there is no warm-up."""
    if warmup < 1:
        raise ValueError(f"warmup must be at least 1, got {warmup}: from scratch a class may never be picked up")


def _by_structure(report: NoiseReport) -> str:
    if report.structure in ("clean", "undecided"):
        return "ce"
    if report.structure == "sparse" or (len(report.pairs) and not truth_is_likeliest(report)):
        return "pair-conditional"
    return "kl corrected" if report.structure == "general" and well_conditioned(report.matrix()) else "kl"


def _warmed(criterion: nn.Module, warmup: int, plan: Plan, n: int) -> WarmUp:
    if plan.steps is None:
        return WarmUp(nn.CrossEntropyLoss(), criterion, warmup, samples=n)
    return WarmUp(nn.CrossEntropyLoss(), criterion, steps=warmup_steps(plan.steps, warmup * plan.an_epoch(n)))
