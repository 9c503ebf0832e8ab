"""Which kind of noise it is: clean, sparse, uniform or general."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdiv_noisy.estimation.checks import check_probabilities
from fdiv_noisy.estimation.pairs import find_pairs
from fdiv_noisy.estimation.report import NoiseReport
from fdiv_noisy.estimation.sets import AnchorSets, anchor_sets
from fdiv_noisy.transition import Sparse, Transition, as_matrix, fit_sparse, fit_uniform

CLEAN_RATE = 0.03
SPARSE_SHARE = 0.6  # a cycle of flips reaches one half
UNIFORM_MISFIT = 0.2
PURE_LABELS = 250  # labels a class needs to show the structure
PURE_FRACTIONS = (0.05, 0.2)
LEAST_INFORMATION = 0.03
FEWEST_LABELS = 30
LEAST_GAIN = 0.02  # nats
PRIOR_STEPS = 500


def select_structure(probs: Tensor, labels: Tensor) -> NoiseReport:
    r"""The kind of noise in `labels` and its transition, both from `anchor_sets`.

    Small, pure sets (`pure_sets`) show the structure, because classes that look alike are hard to tell from classes
    that flip. In this order:

    * `clean` if fewer than 3 % of the labels seem wrong.
    * `sparse` if pairs of classes (`find_pairs`) hold more than 0.6 of all flips. What is outside them is
      taken for class overlap.
    * `uniform` if the matrix is near its uniform fit: what the fit misses, less the part that sampling error alone
      explains, is at most 0.2 of the flips or no larger than that sampling error. The general matrix would then be
      further off than the fit.
    * `general` else.

    Args:
        probs: (N, K) out-of-fold posteriors of the noisy labels (`cross_fit_probabilities`).
        labels: (N,) int64 noisy labels.

    Raises:
        ValueError: Shapes, types or ranges do not fit.
    """
    pure, sets = pure_sets(probs, labels), anchor_sets(probs, labels)
    found = find_pairs(pure.transition, pure.standard_error())
    misfit, by_chance = _uniform_misfit(pure)
    pairs = found.pairs[:0]
    transition: Transition
    if wrong_share(pure.transition, labels) < CLEAN_RATE:
        structure, transition = "clean", pure.transition
    elif found.share > SPARSE_SHARE:
        structure, transition, pairs = "sparse", fit_sparse(sets.transition, found.pairs)[0], found.pairs
    elif misfit <= max(UNIFORM_MISFIT, by_chance):
        structure, transition = "uniform", fit_uniform(sets.transition)[0]
    else:
        structure, transition = "general", sets.transition
    return NoiseReport(
        structure=structure,
        transition=transition,
        pairs=pairs,
        rate=wrong_share(as_matrix(transition), labels),
        share=found.share,
        misfit=misfit,
        n=len(labels),
        method="anchor sets",
        warnings=(*_data_warnings(probs, labels, sets), *information_warnings(transition)),
    )


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


def information_warnings(transition: Transition) -> list[str]:
    """Warnings about noise that leaves next to nothing to learn, or whose matrix cannot be inverted."""
    if isinstance(transition, Sparse):
        left = (1 - transition.rates.sum(1)).tolist()
        return [
            f"pair {i}-{j}: labels seem to tell its classes apart by {s:.3f} only (1 - a - b): perhaps not learnable"
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


def _data_warnings(probs: Tensor, labels: Tensor, sets: AnchorSets) -> list[str]:
    warnings = []
    few = (sets.sizes < FEWEST_LABELS).nonzero()[:, 0].tolist()
    if few:
        named = ", ".join(str(c) for c in few[:10]) + (", ..." if len(few) > 10 else "")
        warnings.append(f"fewer than {FEWEST_LABELS} labels to count in {len(few)} classes ({named}): rough rates")
    share = torch.bincount(labels, minlength=probs.shape[1]).double() / len(labels)
    own = probs.gather(1, labels[:, None]).double().clamp_min(1e-12).log()
    if float(torch.special.entr(share).sum() + own.mean()) < LEAST_GAIN:
        warnings.append("the network hardly predicts the labels: train a better one (make_model) before trusting this")
    return warnings
