"""Linear probes of statistics of images, fitted in one environment and tried in the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEANS = 4
"""Class means to a statistic that a map needs to serve other classes."""


def own_and_others(table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean accuracies (G,) in the probe's own environment and in the others, of `exchange`'s (G, E, E)."""
    own, count = table.diagonal(dim1=-2, dim2=-1).mean(-1), table.shape[-1]
    return own, (table.sum((-2, -1)) - own * count) / (count * (count - 1))


def place_statistics(images: Tensor) -> Tensor:
    """How much brighter seven times seven pieces are than their channel, (*B, 49 C) of images (*B, C, H, W)."""
    pieces = F.adaptive_avg_pool2d(images.flatten(0, -4), 7)
    pieces = pieces - pieces.mean((-2, -1), keepdim=True)
    return pieces.flatten(1).unflatten(0, images.shape[:-3])


def misleading(x: Tensor, y: Tensor, q: Tensor, qy: Tensor, *, ways: int) -> Tensor:
    """Indices of the single statistics whose probes lose in other environments.

    They lose by three standard errors over tasks, and half as much as the worst of them. The arguments are those of
    `exchange`, of two tasks or more.
    """
    costs = []
    for one, other in zip(x.split(1, -1), q.split(1, -1), strict=True):
        own, others = own_and_others(exchange(one, y, other, qy, ways=ways))
        costs.append(own - others)
    cost = torch.stack(costs)
    mean, error = cost.mean(1), cost.std(1) / cost.shape[1] ** 0.5
    return ((mean > 3 * error) & (mean > mean.max() / 2)).nonzero()[:, 0]


def exchange(x: Tensor, y: Tensor, q: Tensor, qy: Tensor, *, ways: int) -> Tensor:
    """Accuracy (G, E, E) of the probe of each environment (rows) on the queries of each (columns).

    Args:
        x: (G, E, S, F) statistics of support images.
        y: (G, E, S) labels.
        q: (G, E, Q, F) statistics of query images.
        qy: (G, E, Q) labels.
        ways: N.
    """
    member = F.one_hot(y, ways).to(x.dtype)
    means = (member.transpose(-1, -2) @ x) / member.sum(-2).clamp_min(1)[..., None]
    rest = x - member @ means
    scale = x.var(-2, correction=0).mean(-1)[..., None, None].clamp_min(1e-12)
    identity = torch.eye(x.shape[-1], dtype=x.dtype)
    covariance = rest.transpose(-1, -2) @ rest / x.shape[-2] + 0.05 * scale * identity
    columns = []
    for j in range(x.shape[1]):
        # the means of environment i as j would show them; of j itself as they are
        shown = torch.stack(
            [means[:, i] if i == j else _carried(means[:, i], means[:, j]) for i in range(x.shape[1])], 1
        )
        weight = torch.linalg.solve(covariance[:, j, None], shown.transpose(-1, -2)).transpose(-1, -2)
        scores = q[:, j, None] @ weight.transpose(-1, -2) - 0.5 * (weight * shown).sum(-1)[..., None, :]
        columns.append((scores.argmax(-1) == qy[:, j, None]).double().mean(-1))
    return torch.stack(columns, -1)


def _carried(source: Tensor, target: Tensor) -> Tensor:
    """Class means (G, N, F) of one environment as another shows them.

    Each by the affine map that fits the other classes of all tasks best. A transform does to one class what it does to
    the others; a nuisance tied to the number of a class does not, so it can't be carried. Where the tasks are too few
    for a map that serves classes it has not seen, it is fitted to all of them.
    """
    tasks, ways, statistics = source.shape
    if tasks * (ways - 1) < MEANS * statistics:
        return _map(source, target, source)
    others = [[m for m in range(ways) if m != n] for n in range(ways)]
    return torch.stack([_map(source[:, rest], target[:, rest], source[:, n]) for n, rest in enumerate(others)], 1)


def _map(source: Tensor, target: Tensor, means: Tensor) -> Tensor:
    """``means`` (..., F) by the affine map, with a ridge, from ``source`` to ``target`` (G, M, F)."""
    x, y = source.flatten(0, 1), target.flatten(0, 1)
    centre, goal = x.mean(0), y.mean(0)
    gram = (x - centre).T @ (x - centre)
    ridge = 1e-3 * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(x.shape[-1], dtype=x.dtype)
    change = torch.linalg.solve(gram + ridge, (x - centre).T @ (y - goal))
    return (means - centre) @ change + goal
