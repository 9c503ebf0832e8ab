r"""From the race to the loss.

Accuracy on noisy labels ranks classifiers as accuracy on clean ones does, wherever the true class is the likeliest
label (Chen et al. 2021). So it chooses, and a loss that is no clear winner over a simpler one is not taken.

Where the report finds classes whose labels are wrong more often than right, that accuracy misleads. Overlap of classes
cannot look like this: the most typical samples of a class would still have its label. There a corrected loss is judged
by the accuracy that the report implies, $E[C_{\tilde y \hat y}]$ with the bias correction C of the noise. The
pair-conditional loss is judged by what needs the pairs alone: a guess in the label's pair counts by how much more often
than by chance it is the label, $1[\hat y = \tilde y] - P(\hat y \mid \text{pair})$, whose mean is the total
variation inside the pairs; a classifier that calls both classes of a pair by the likelier label has none. It must not
be worse at telling pairs apart, whose labels are right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fdiv_noisy.choice.candidates import PLAIN, well_conditioned
from fdiv_noisy.choice.race import Race
from fdiv_noisy.estimation import NoiseReport
from fdiv_noisy.transition import coefficients

CLEARLY = 1.0  # standard errors by which a loss must beat a simpler one
VERY_CLEARLY = 3.0  # the same where the judgement rests on an estimated matrix
NOT_BEHIND = -1.0  # the same for the pair-conditional loss, which gains much where it is right and loses little else
NOT_WORSE = -3.0  # standard errors that it may be behind in telling pairs apart
SETTLED = 1.5  # standard errors from what it needs at which a lead hardly changes with more labels


@dataclass(frozen=True)
class Standing:
    """One candidate in the race.

    Attributes:
        name: The loss.
        accuracy: Its share of right guesses by the noisy labels.
        implied: The clean accuracy that the report's noise implies; None where that says no more than `accuracy`.
    """

    name: str
    accuracy: float
    implied: float | None


@dataclass(frozen=True)
class Verdict:
    """The loss that is taken, and why.

    Attributes:
        name: The loss, a name of `candidates`.
        why: One sentence.
        standings: All candidates.
        judged: Number of labels they were judged by.
        closest: Standard errors by which the most doubtful comparison was decided.
    """

    name: str
    why: str
    standings: tuple[Standing, ...]
    judged: int
    closest: float = math.inf

    def __str__(self) -> str:
        lines = [f"{'candidate':<18}{'noisy labels, %':>17}{'implied clean, %':>18}"]
        for one in self.standings:
            implied = "" if one.implied is None else f"{100 * one.implied:.1f}"
            lines.append(f"{one.name:<18}{100 * one.accuracy:>17.1f}{implied:>18}")
        return "\n".join([*lines, f"taken: {self.name}, {self.why} ({self.judged} labels kept back)"])


def decide(race: Race, report: NoiseReport) -> Verdict:
    """The loss to train with."""
    right = {name: (guesses == race.labels).double() for name, guesses in race.guesses.items()}
    bar, likeliest = Bar(), truth_is_likeliest(report)
    measure = right if likeliest or not len(report.pairs) else _within_pairs(race, report)
    best, why = PLAIN[0], "the plain choice, which none beats clearly"
    for name in PLAIN[1:]:
        if bar.cleared(measure[name], measure[best], CLEARLY):
            best, why = name, "it guesses noisy labels best among the losses that know nothing of the noise"
    for name in race.guesses:
        if name in PLAIN:
            continue
        if likeliest and bar.cleared(right[name], right[best], CLEARLY):
            best, why = name, "it guesses noisy labels best"
        if not likeliest and _corrects(name, best, bar, race, report):
            best, why = name, "for labels of some classes seem to be wrong more often than right"
    means = _means(race, report)
    standings = tuple(Standing(name, float(values.mean()), means[name]) for name, values in right.items())
    return Verdict(best, why, standings, len(race.labels), bar.closest)


def _corrects(name: str, best: str, bar: Bar, race: Race, report: NoiseReport) -> bool:
    """Whether a loss made for this noise beats `best` where labels of some classes are wrong more often than right."""
    if name == "pair-conditional":
        within, pairs = _within_pairs(race, report), _pair_found(race, report)
        holds = bar.cleared(within[name], within[best], NOT_BEHIND)
        return holds and bar.cleared(pairs[name], pairs[best], NOT_WORSE)
    implied = _implied(race, report)
    return implied is not None and bar.cleared(implied[name], implied[best], VERY_CLEARLY)


def is_settled(race: Race, report: NoiseReport) -> bool:
    """Whether more labels to judge by would hardly change the verdict."""
    return decide(race, report).closest > SETTLED


class Bar:
    """Leads measured against what they need.

    Attributes:
        closest: Standard errors by which the most doubtful lead so far cleared or missed what it needed.
    """

    def __init__(self) -> None:
        self.closest = math.inf

    def cleared(self, one: Tensor, other: Tensor, needed: float) -> bool:
        """Whether the mean of `one` (M,) leads that of `other` by `needed` standard errors, pair by pair."""
        lead = _lead(one, other)
        self.closest = min(self.closest, abs(lead - needed))
        return lead > needed


def truth_is_likeliest(report: NoiseReport) -> bool:
    """Whether the true class is the likeliest label of each class, by the report."""
    matrix = report.matrix()
    return bool((matrix.argmax(1) == torch.arange(len(matrix), device=matrix.device)).all())


def _implied(race: Race, report: NoiseReport) -> dict[str, Tensor] | None:
    if report.structure in ("clean", "uniform", "undecided"):
        return None
    if isinstance(report.transition, Tensor) and not well_conditioned(report.matrix()):
        return None
    worth = coefficients(report.transition).double().cpu()
    return {name: worth[race.labels, guesses] for name, guesses in race.guesses.items()}


def _within_pairs(race: Race, report: NoiseReport) -> dict[str, Tensor]:
    """By candidate, (M,): 0 for a guess outside the label's pair, else whether it is the label less its share there."""
    partner = _partners(report)
    counts = torch.bincount(race.labels, minlength=len(partner)).double()
    share = counts / (counts + counts[partner]).clamp_min(1)
    share[partner == torch.arange(len(partner))] = 1
    found = _pair_found(race, report)
    return {
        name: ((guesses == race.labels).double() - share[guesses]) * found[name]
        for name, guesses in race.guesses.items()
    }


def _pair_found(race: Race, report: NoiseReport) -> dict[str, Tensor]:
    """By candidate, (M,): 1 where the guess is the label or its partner."""
    others = _partners(report)[race.labels]
    return {name: ((found == race.labels) | (found == others)).double() for name, found in race.guesses.items()}


def _partners(report: NoiseReport) -> Tensor:
    """(K,) the other class of each class's pair; a class without one is its own."""
    partner, pairs = torch.arange(len(report.matrix())), report.pairs.cpu()
    partner[pairs] = pairs.flip(1)
    return partner


def _means(race: Race, report: NoiseReport) -> dict[str, float | None]:
    """The clean accuracy of each candidate that the report implies, for the table."""
    matrix = report.matrix().double().cpu()
    if report.structure in ("clean", "undecided") or not well_conditioned(matrix):
        return dict.fromkeys(race.guesses)
    worth = torch.linalg.inv(matrix)
    return {name: float(worth[race.labels, guesses].mean()) for name, guesses in race.guesses.items()}


def _lead(one: Tensor, other: Tensor) -> float:
    """By how many standard errors the mean of `one` (M,) lies above that of `other`, pair by pair."""
    difference = one - other
    error = difference.std() / len(difference) ** 0.5
    return float(difference.mean() / error.clamp_min(1e-12)) if bool(error > 0) else 0.0
