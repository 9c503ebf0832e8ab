r"""Flip rates inside known pairs, from the labels of nearest neighbours.

Inside a pair {i, j} each label is one bit, with chance 1 - a of i on class i and b on class j. Neighbours share
their class, mostly, so the number of i-labels among k neighbours is a mixture of two binomials, which tells the two
classes apart without any clean label. The component with more i-labels is class i: this is where a + b < 1 enters,
and it is all that noisy labels leave open. A sample's own label is not among its neighbours', so the own labels in
each component are unbiased draws of the rates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.transition import Sparse, check_classes, check_pairs

NEIGHBOURS = (25, 50, 100, 200, 400, 800)
EM_STEPS = 100
EDGE = 1e-3  # chances and weights of the mixture stay this far from 0 and 1


class PairRates(NamedTuple):
    """What `pair_rates` finds.

    Attributes:
        model: The sparse noise model.
        neighbours: (P,) int64, how many neighbours were used in each pair.
    """

    model: Sparse
    neighbours: Tensor


def pair_rates(
    features: Tensor,
    labels: Tensor,
    pairs: Tensor,
    num_classes: int,
    *,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    dimensions: int = 50,
    max_samples: int = 8_000,
    seed: int = 0,
) -> PairRates:
    r"""Estimate the flip rates of sparse noise on known `pairs`.

    Of several numbers of neighbours the one is taken that makes $4 w (1 - w) (1 - \hat a - \hat b)$ largest,
    w being the share of class i: components that mix the classes have rates closer together, so this needs no clean
    label (it is the determinant of the pair's joint distribution of classes and labels, up to a factor).

    Args:
        features: (N, ...) in which neighbours are near: pixels of digits and clothes do, photos need a network's
            features. They are flattened.
        labels: (N,) int64 noisy labels.
        pairs: (P, 2) int64 disjoint pairs.
        num_classes: K.
        neighbours: Numbers of neighbours to choose from; those above a quarter of a pair's samples are passed over.
        dimensions: Principal components to which larger features are reduced, within each pair.
        max_samples: Most samples of one pair that are looked at, drawn at random; time grows with its square (about a
            second and a half for a pair of 8,000 on one core).
        seed: Of that draw.

    Raises:
        ValueError: Shapes do not belong together, labels or pairs are out of range, or a pair has too few samples.
    """
    check_classes(labels, num_classes)
    check_pairs(pairs, num_classes)
    if features.shape[:1] != labels.shape:
        raise ValueError(f"features {tuple(features.shape)} and labels {tuple(labels.shape)} differ in length")
    generator = torch.Generator().manual_seed(seed)
    rates, chosen = [], []
    for i, j in pairs.tolist():
        rows = ((labels == i) | (labels == j)).nonzero()[:, 0]
        if len(rows) < 4 * min(neighbours):
            raise ValueError(f"the pair {(i, j)} has {len(rows)} samples, needs {4 * min(neighbours)}: use anchor_sets")
        draw = torch.randperm(len(rows), generator=generator)[:max_samples].to(rows.device)
        rows = rows[draw]
        is_first = (labels[rows] == i).float()
        numbers = [k for k in neighbours if 4 * k <= len(rows)]
        near = neighbour_counts(_principal(features[rows.to(features.device)], dimensions), is_first, numbers)
        rate, best = _two_components(near, torch.tensor(numbers, device=near.device), is_first)
        rates.append(rate)
        chosen.append(numbers[best])
    values = torch.stack(rates) if rates else torch.zeros(0, 2)
    return PairRates(Sparse(pairs, values.to(pairs.device), num_classes), torch.tensor(chosen, dtype=torch.int64))


def neighbour_counts(features: Tensor, marks: Tensor, numbers: list[int], chunk: int = 1024) -> Tensor:
    """Sum of `marks` among each sample's nearest neighbours, itself left out.

    Args:
        features: (N, D) floats; nearness is Euclidean.
        marks: (N,) floats.
        numbers: Numbers of neighbours k < N.
        chunk: Samples at a time; memory is `chunk` times N floats.

    Returns:
        (N, len(numbers)).
    """
    marks = marks.to(features.device)
    half_norms = features.square().sum(1) / 2
    columns = torch.tensor(numbers, device=features.device) - 1
    counts = []
    for rows in torch.arange(len(features), device=features.device).split(chunk):
        closeness = features[rows] @ features.T - half_norms  # falls with the distance
        closeness.scatter_(1, rows[:, None], -torch.inf)
        nearest = closeness.topk(max(numbers), dim=1).indices
        counts.append(marks[nearest].cumsum(1)[:, columns])
    return torch.cat(counts)


def _principal(features: Tensor, dimensions: int) -> Tensor:
    flat = features.flatten(1).float()
    flat = flat - flat.mean(0)
    if flat.shape[1] <= dimensions:
        return flat
    if flat.shape[1] <= 1024:
        return flat @ torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -dimensions:]
    with torch.random.fork_rng([flat.device] if flat.is_cuda else []):
        torch.manual_seed(0)  # the randomised decomposition draws from the global state
        return flat @ torch.pca_lowrank(flat, q=dimensions, center=False)[2]


def _two_components(counts: Tensor, numbers: Tensor, is_first: Tensor) -> tuple[Tensor, int]:
    """Rates (a, b) by own labels in the components of `counts` (N, M), and the best of the M `numbers`."""
    belongs = mixture_of_two(counts, numbers) > 0.5
    own = is_first.to(counts.device)[:, None]
    first, second = belongs.sum(0), (~belongs).sum(0)
    keeps = (own * belongs).sum(0) / first.clamp_min(1)
    flips = (own * ~belongs).sum(0) / second.clamp_min(1)
    weight = first / len(counts)
    best = int((4 * weight * (1 - weight) * (keeps - flips)).argmax())
    a, b = 1 - keeps[best], flips[best]
    excess = (a + b - (1 - EDGE)).clamp_min(0) / 2  # no information at all: stay a valid model
    return torch.stack([a - excess, b - excess]).clamp_min(0), best


def mixture_of_two(counts: Tensor, numbers: Tensor) -> Tensor:
    """Chance of the component with more successes, under two binomials fitted by expectation maximisation.

    Args:
        counts: (N, M) successes.
        numbers: (M,) trials of each column; columns are fitted separately.

    Returns:
        (N, M) float64 in [0, 1].
    """
    trials = numbers.double()
    share = counts.double() / trials
    low, high = share.quantile(torch.tensor([0.1, 0.9], dtype=share.dtype, device=share.device), dim=0)
    weight = torch.full_like(low, 0.5)
    chance = torch.empty_like(share)
    for _ in range(EM_STEPS):
        low, high, weight = (value.clamp(EDGE, 1 - EDGE) for value in (low, high, weight))
        odds = share * (high / low).log() + (1 - share) * ((1 - high) / (1 - low)).log()
        chance = torch.sigmoid(trials * odds + torch.logit(weight))
        total = chance.sum(0)
        high = (chance * share).sum(0) / total.clamp_min(1e-9)
        low = ((1 - chance) * share).sum(0) / (len(share) - total).clamp_min(1e-9)
        weight = total / len(share)
    return torch.where(high >= low, chance, 1 - chance)
