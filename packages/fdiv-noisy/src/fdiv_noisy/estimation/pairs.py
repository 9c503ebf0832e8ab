"""Which classes exchange their labels: pairs of sparse noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdiv_noisy.transition import check_matrix

DOMINANCE = 2.0
SIGNIFICANCE = 3.0


class Pairs(NamedTuple):
    """What `find_pairs` finds.

    Attributes:
        pairs: (P, 2) int64 disjoint pairs, i < j in each, sorted.
        share: Part of all off-diagonal mass of T that lies inside the pairs, in [0, 1]; 0 without pairs.
    """

    pairs: Tensor
    share: float


def find_pairs(transition: Tensor, standard_error: Tensor | None = None) -> Pairs:
    r"""Pairs of classes that flip into each other far more than into any other class.

    {i, j} is a pair if its exchange $W_{ij} = T_{ij} + T_{ji}$ is at least twice that of any other edge of i or
    of j, and three standard errors above zero. It then weighs as much as any two edges that could replace it, so that
    the pairs found are part of a maximum-weight matching of W. A matching alone would pair all classes whatever the
    noise; this finds no pair under uniform noise, where all edges are alike, nor in a cycle of flips i -> i + 1, where
    each class has two equal edges, and leaves out classes that keep their labels.

    Args:
        transition: (K, K) row-stochastic matrix.
        standard_error: (K, K) of its entries; without it the entries are taken as exact.

    Raises:
        ValueError: The matrix is not row-stochastic, or the errors have another shape.
    """
    check_matrix(transition)
    k = transition.shape[0]
    exchange = transition + transition.T
    exchange.fill_diagonal_(0)
    error = torch.zeros_like(exchange)
    if standard_error is not None:
        if standard_error.shape != transition.shape:
            raise ValueError(f"standard_error must have shape {(k, k)}, got {tuple(standard_error.shape)}")
        error = (standard_error.square() + standard_error.T.square()).sqrt()
    heaviest, partner = exchange.max(1)
    rival = exchange.scatter(1, partner[:, None], -torch.inf).max(1).values.clamp_min(0)
    rival = torch.maximum(rival, rival[partner])
    i = torch.arange(k, device=partner.device)
    alone = (partner[partner] == i) & (heaviest >= DOMINANCE * rival)
    clear = heaviest > SIGNIFICANCE * error.gather(1, partner[:, None])[:, 0]
    first = (alone & clear & (i < partner)).nonzero()[:, 0]
    pairs = torch.stack([first, partner[first]], dim=1)
    inside = 2 * exchange[pairs[:, 0], pairs[:, 1]].sum()
    share = inside / exchange.sum().clamp_min(torch.finfo(exchange.dtype).tiny)
    return Pairs(pairs, float(share))
