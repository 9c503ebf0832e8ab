"""Which kind of noise it is: clean, sparse, uniform or general."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fdiv_noisy.estimation.blocks import EVEN, background, completed, find_groups, fit_blocks
from fdiv_noisy.estimation.checks import check_probabilities, check_several
from fdiv_noisy.estimation.pairs import SIGNIFICANCE, find_pairs
from fdiv_noisy.estimation.report import NoiseReport, class_name
from fdiv_noisy.estimation.sets import AnchorSets, anchor_sets
from fdiv_noisy.transition import Sparse, Transition, Uniform, as_matrix, fit_sparse, fit_uniform

UNLEARNED = "the network hardly predicts the labels: train a better one (make_model) before trusting this"
CLEAN_RATE = 0.03
TYPICAL = 0.01  # share of a class's samples that count as most typical
FEWEST_TYPICAL = 60
Z = 1.96
LEAST_ALIKE = 0.2  # share of samples that look least like a class
OVERLAP = (
    "the labels of the most typical samples are right: what seems wrong elsewhere may be classes that overlap, so that "
    "no correction should rest on this"
)
PART_OVERLAP = (
    "more labels seem wrong than the most typical samples show: part of the matrix is overlap of classes, or a network "
    "too weak to tell them apart"
)
UNDECIDED = f"{PART_OVERLAP}, so that no correction should rest on this; a better network (make_model) decides"
DECIDED = f"{PART_OVERLAP}, and the lower bound of the rate is nearer to the truth"
MANY_TYPICAL = 200  # samples whose wrong labels bound those of a matrix without structure
SPARSE_SHARE = 0.6  # a cycle of flips reaches one half
BACKED_SHARE = 0.3  # the same where the flips outside the pairs are even
UNIFORM_MISFIT = 0.2
PURE_LABELS = 250  # labels a class needs to show the structure
PURE_FRACTIONS = (0.05, 0.2)
LEAST_INFORMATION = 0.03
FEWEST_LABELS = 30
LEAST_GAIN = 0.02  # nats
PRIOR_STEPS = 500


def select_structure(probs: Tensor, labels: Tensor, *, names: Sequence[str] = ()) -> NoiseReport:
    r"""The kind of noise in `labels` and its transition, both from `anchor_sets`.

    Small, pure sets (`pure_sets`) show the structure, because classes that look alike are hard to tell from classes
    that flip. In this order:

    * `clean` if fewer than 3 % of the labels seem wrong.
    * `undecided` if the most typical samples, where overlap of classes is least, show no wrong labels, or if groups or
      a general matrix would hold more than they show: what looks wrong elsewhere may be overlap. Not where some class
      has another label more often than its own, which overlap cannot do.
    * `sparse` if pairs of classes (`find_pairs`) hold more than 0.6 of all flips; `sparse+uniform` if the other flips
      are many and even. What is outside the pairs else is taken for class overlap.
    * `groups` if groups of classes (`find_groups`) hold more than 0.6 of all flips, or more than 0.4 where their
      classes exchange ten times as many labels as others do, evenly inside each.
    * `uniform` if the matrix is near its uniform fit: what the fit misses, less the part that sampling error alone
      explains, is at most 0.2 of the flips or no larger than that sampling error. The general matrix would then be
      further off than the fit.
    * `general` else.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels (`cross_fit_probabilities`).
        labels: (N,) int64 noisy labels.
        names: Of the K classes, for the report's text; empty for their numbers.

    Raises:
        ValueError: Shapes, types or ranges do not fit, or there is one class.
    """
    check_several(probs.shape[-1])
    pure, sets = pure_sets(probs, labels), anchor_sets(probs, labels)
    found = find_pairs(pure.transition, pure.standard_error())
    misfit, by_chance = _uniform_misfit(pure)
    low, high = rate_interval(probs, labels)
    seeming = wrong_share(pure.transition, labels)
    pairs, flipped = found.pairs[:0], _flips_are_likelier(pure)
    transition: Transition
    if seeming < CLEAN_RATE:
        structure, transition = "clean", pure.transition
    elif low < CLEAN_RATE and not flipped:
        structure, transition = "undecided", sets.transition
    elif found.share > SPARSE_SHARE or (found.share > BACKED_SHARE and _even_background(pure, found.pairs)):
        structure, transition = _in_pairs(pure, sets.transition, found.pairs)
        pairs = found.pairs
    elif (grouped := _in_groups(probs, labels, sets)) is not None:
        structure, transition = "groups", grouped
    elif misfit <= max(UNIFORM_MISFIT, by_chance):
        structure, transition = "uniform", _uniform(probs, labels, sets)
    else:
        structure, transition = "general", sets.transition
    rate = wrong_share(as_matrix(transition), labels)
    doubts = [OVERLAP] if structure == "undecided" else []
    if structure in ("groups", "general") and holds_overlap(rate, probs, labels):
        doubts = [DECIDED]
        if not flipped:
            structure, transition, doubts = "undecided", sets.transition, [UNDECIDED]
    if doubts:
        low, high = (0.0 if structure == "undecided" else low), rate_interval(probs, labels, MANY_TYPICAL)[1]
        rate = min(rate, high)
    return NoiseReport(
        structure=structure,
        transition=transition,
        pairs=pairs,
        rate=rate,
        share=found.share,
        misfit=misfit,
        n=len(labels),
        method="anchor sets",
        warnings=(*doubts, *_data_warnings(probs, labels, sets, names), *information_warnings(transition, names)),
        interval=(min(low, rate), max(high, rate)),
        names=tuple(names),
    )


def rate_interval(probs: Tensor, labels: Tensor, fewest: int = FEWEST_TYPICAL) -> tuple[float, float]:
    """Bounds of the share of wrong labels among the most typical samples of all classes (95 %, Wilson).

    The samples are the hundredth with the largest probability of each class, `fewest` at least in all. Overlap makes
    few of them differ from their class, noise as many as elsewhere.
    """
    n, k = probs.shape
    each = max(1, math.ceil(max(TYPICAL * n, fewest) / k))
    rows = probs.topk(min(each, n), dim=0).indices
    wrong = (labels[rows] != torch.arange(k, device=labels.device)).double()
    m, share = wrong.numel(), float(wrong.mean())
    middle = (share + Z**2 / (2 * m)) / (1 + Z**2 / m)
    half = Z / (1 + Z**2 / m) * math.sqrt(share * (1 - share) / m + Z**2 / (4 * m**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def holds_overlap(rate: float, probs: Tensor, labels: Tensor) -> bool:
    """Whether a share of wrong labels is larger than what the most typical samples allow."""
    return rate > rate_interval(probs, labels, MANY_TYPICAL)[1]


def _flips_are_likelier(sets: AnchorSets) -> bool:
    """Whether some class has another label more often than its own beyond chance, which overlap cannot do."""
    own, other = sets.transition.diag(), sets.transition.clone().fill_diagonal_(0).amax(1)
    lead, sizes = other - own, sets.sizes.clamp_min(1)
    error = ((other + own - lead.square()) / sizes).clamp_min(0).sqrt()
    return bool((lead > SIGNIFICANCE * error).any())


def label_floors(probs: Tensor, labels: Tensor) -> Tensor:
    """(K,) share of each label among the fifth of samples that look least like its class.

    There next to no sample is of the class, however much classes overlap, so that this is the chance of the label for
    samples of any other class, under noise that gives it to all of them alike.

    Args:
        probs: (N, K) out-of-fold posteriors.
        labels: (N,) int64 noisy labels.
    """
    n, k = probs.shape
    rows = probs.topk(math.ceil(LEAST_ALIKE * n), 0, largest=False).indices
    return (labels[rows] == torch.arange(k, device=labels.device)).float().mean(0)


def _uniform(probs: Tensor, labels: Tensor, sets: AnchorSets) -> Uniform:
    """The fit to the anchor sets, or that to the label floors where it is lower: overlap raises both."""
    by_sets = fit_uniform(sets.transition)[0]
    floors = label_floors(probs, labels).to(by_sets.rates)
    return Uniform(floors) if float(floors.sum()) < float(by_sets.rates.sum()) else by_sets


def _in_pairs(pure: AnchorSets, matrix: Tensor, pairs: Tensor) -> tuple[str, Transition]:
    """Pairs alone, or on a uniform background if what lies outside them is much and even."""
    if not _even_background(pure, pairs):
        return "sparse", fit_sparse(matrix, pairs)[0]
    i, j = pairs.unbind(1)
    fit = background(matrix, _outside(pairs, len(matrix)))
    fit[i, j], fit[j, i] = matrix[i, j], matrix[j, i]
    return "sparse+uniform", completed(fit)


def _even_background(pure: AnchorSets, pairs: Tensor) -> bool:
    """Whether flips that leave their pair are more than overlap is likely to give, and the same for all classes."""
    t = pure.transition
    outside = _outside(pairs, len(t))
    flips = float(t[outside].sum())
    by_chance = math.sqrt(2 / math.pi) * float(pure.standard_error()[outside].sum())
    missed = float((t - background(t, outside))[outside].abs().sum())
    return flips >= 2 * CLEAN_RATE * len(t) and missed <= by_chance + UNIFORM_MISFIT * flips


def _outside(pairs: Tensor, num_classes: int) -> Tensor:
    outside = ~torch.eye(num_classes, dtype=torch.bool, device=pairs.device)
    i, j = pairs.unbind(1)
    outside[i, j] = outside[j, i] = False
    return outside


def _in_groups(probs: Tensor, labels: Tensor, sets: AnchorSets) -> Tensor | None:
    k = probs.shape[1]
    counts = torch.bincount(probs.argmax(1) * k + labels, minlength=k * k).view(k, k)
    groups = find_groups(counts)
    if not groups.hold_the_flips():
        return None
    fit, missed = fit_blocks(sets.transition, groups.members, label_floors(probs, labels))
    error = sets.standard_error()[groups.members[:, None] == groups.members].sum()
    flips = fit[groups.members[:, None] == groups.members].sum() - fit.diag().sum()
    by_chance = math.sqrt(2 / math.pi) * float(error / flips)
    return fit if missed <= EVEN + by_chance else None


def pure_sets(probs: Tensor, labels: Tensor) -> AnchorSets:
    """Anchor sets as small as sampling error allows: a twentieth to a fifth of a class, about 250 labels."""
    check_probabilities(probs, labels)
    n, k = probs.shape
    least, most = PURE_FRACTIONS
    return anchor_sets(probs, labels, fraction=min(max(PURE_LABELS * k / n, least), most))


def wrong_share(transition: Tensor, labels: Tensor) -> float:
    r"""Share of wrong labels $\sum_i p_i (1 - T_{ii})$, p being the clean prior with $p T = P(\tilde Y)$.

    p is found by expectation maximisation from equal shares: it stays a distribution, and close to equal shares where
    T hardly tells classes apart, which solving the equation would not.

    Args:
        transition: (K, K) row-stochastic matrix.
        labels: (N,) int64 noisy labels.
    """
    t = transition.double().cpu()
    noisy = torch.bincount(labels.cpu(), minlength=len(t)).double() / len(labels)
    prior = torch.full_like(noisy, 1 / len(t))
    for _ in range(PRIOR_STEPS):
        prior = prior * (t @ (noisy / (prior @ t).clamp_min(1e-12)))
    return float((prior * (1 - t.diag())).sum() / prior.sum())


def information_warnings(transition: Transition, names: Sequence[str] = ()) -> list[str]:
    """Warnings about noise that leaves next to nothing to learn, or whose matrix cannot be inverted."""
    if isinstance(transition, Sparse):
        left = (1 - transition.rates.sum(1)).tolist()
        return [
            f"pair {class_name(i, names)}-{class_name(j, names)}: labels seem to tell its classes apart by {s:.3f} "
            "only (1 - a - b): perhaps not learnable"
            for (i, j), s in zip(transition.pairs.tolist(), left, strict=True)
            if s < LEAST_INFORMATION
        ]
    smallest = float(torch.linalg.svdvals(as_matrix(transition).double())[-1])
    if smallest >= LEAST_INFORMATION:
        return []
    return [f"the transition matrix is nearly singular (smallest singular value {smallest:.3f}): do not invert it"]


def _uniform_misfit(sets: AnchorSets) -> tuple[float, float]:
    """What the uniform fit misses beyond chance, and what it would miss by chance, over the off-diagonal mass."""
    t = sets.transition
    off = (t.sum() - t.diag().sum()).clamp_min(torch.finfo(t.dtype).tiny)
    by_chance = math.sqrt(2 / math.pi) * sets.standard_error().sum() / off  # mean absolute value of a normal error
    return max(0.0, fit_uniform(t)[1] - float(by_chance)), float(by_chance)


def _data_warnings(probs: Tensor, labels: Tensor, sets: AnchorSets, names: Sequence[str]) -> list[str]:
    warnings = []
    few = (sets.sizes < FEWEST_LABELS).nonzero()[:, 0].tolist()
    if few:
        named = ", ".join(class_name(c, names) for c in few[:10]) + (", ..." if len(few) > 10 else "")
        warnings.append(f"fewer than {FEWEST_LABELS} labels to count in {len(few)} classes ({named}): rough rates")
    share = torch.bincount(labels, minlength=probs.shape[1]).double() / len(labels)
    own = probs.gather(1, labels[:, None]).double().clamp_min(1e-12).log()
    if float(torch.special.entr(share).sum() + own.mean()) < LEAST_GAIN:
        warnings.append(UNLEARNED)
    return warnings
