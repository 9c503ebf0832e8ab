"""Groups of classes whose labels are exchanged inside the group, with or without a uniform background."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CLEAR = 5.0  # standard deviations above the mean exchange that make an edge
EVEN = 0.35  # largest misfit of a group's flips to even ones, over its flips, less sampling error
MOST = 0.6  # share of all flips that groups hold
MANY = 0.4  # the same where two classes of a group exchange far more labels than others: many classes overlap somewhere
FAR_MORE = 10.0


class Groups(NamedTuple):
    """What `find_groups` finds.

    Attributes:
        members: (K,) int64, the number of each class's group; a class alone has a group of its own.
        share: Part of all flips that lies inside groups, in [0, 1].
        contrast: Mean exchange of two classes of a group over that of two others.
    """

    members: Tensor
    share: float
    contrast: float

    def hold_the_flips(self) -> bool:
        """Whether the noise lies in the groups."""
        return self.share > MOST or (self.share > MANY and self.contrast > FAR_MORE)


def find_groups(counts: Tensor) -> Groups:
    """Groups of three classes or more that exchange labels far more than others do.

    Two classes are joined where their exchange is far above the mean of all pairs, and most classes joined to one are
    joined to the other: two that merely look alike join no two groups, and a cycle is no group. A group is what hangs
    together, at most half of the classes.

    Args:
        counts: (K, K) samples by guessed class and noisy label.
    """
    k = len(counts)
    exchange = (counts + counts.T).double().fill_diagonal_(0)
    mean = exchange.sum() / (k * (k - 1))
    linked = _with_common_company(exchange > mean + CLEAR * mean.sqrt() + 1)
    linked = linked | torch.eye(k, dtype=torch.bool, device=counts.device)
    for _ in range(k.bit_length()):
        linked = linked.double() @ linked.double() > 0
    members = linked.double().argmax(1)  # the first class of each component
    sizes = torch.bincount(members, minlength=k)[members]
    members = torch.where((sizes >= 3) & (2 * sizes <= k), members, torch.arange(k, device=counts.device))
    inside = members[:, None] == members
    apart = inside.numel() - inside.sum()
    pairs = (inside.sum() - k).clamp_min(1)
    within = exchange[inside].sum()
    others = (exchange.sum() - within) / apart.clamp_min(1)
    share = within / exchange.sum().clamp_min(1)
    return Groups(members, float(share), float(within / pairs / others.clamp_min(1e-9)))


def _with_common_company(linked: Tensor) -> Tensor:
    """The links (K, K) of two classes that have at least half of their other links in common."""
    links = linked.double()
    degree = links.sum(1)
    fewest = torch.minimum(degree[:, None], degree)
    return linked & (links @ links >= ((fewest - 1) / 2).clamp_min(1))


def fit_blocks(matrix: Tensor, members: Tensor, most: Tensor) -> tuple[Tensor, float]:
    """The matrix with even flips inside each group and a uniform background, nearest to `matrix` (K, K) by means.

    Args:
        matrix: (K, K) row-stochastic.
        members: (K,) int64, the group of each class.
        most: (K,) largest background of each label; what overlap of classes adds to it is above.

    Returns:
        The row-stochastic (K, K) fit, and the misfit inside groups over the flips there.
    """
    k = len(matrix)
    inside = (members[:, None] == members) & ~torch.eye(k, dtype=torch.bool, device=matrix.device)
    outside = ~inside & ~torch.eye(k, dtype=torch.bool, device=matrix.device)
    fit = torch.minimum(background(matrix, outside), most.to(matrix))
    for group in members.unique():
        block = inside & (members == group)[:, None]
        if block.any():
            fit[block] = matrix[block].mean()
    missed = (fit - matrix)[inside].abs().sum() / matrix[inside].sum().clamp_min(torch.finfo(matrix.dtype).tiny)
    return completed(fit), float(missed)


def completed(flips: Tensor) -> Tensor:
    """The row-stochastic matrix with the off-diagonal entries `flips` (K, K), scaled down where they exceed a row."""
    whole = flips + (1 - flips.sum(1)).clamp_min(0).diag()
    return whole / whole.sum(1, keepdim=True)


def background(matrix: Tensor, outside: Tensor) -> Tensor:
    """(K, K): each entry where `outside` is true is the mean of its column there, 0 elsewhere."""
    mean = (matrix * outside).sum(0) / outside.sum(0).clamp_min(1)
    return torch.where(outside, mean.expand_as(matrix), 0.0)
