r"""Will robust meta-learning help here? Whether the environments differ in a nuisance that says the label.

It was found to help where what misleads in one environment is of no use in the others. That can be seen before any
training: fit a small classifier (a probe) to the statistics of the images that are no shape, as colour, brightness and
contrast, in each environment of a task, and exchange the probes between environments. What a transform does to the
statistics, alike in every task, is taken into account first: it is no relation to the label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rml_meta.episode import EpisodeLike
from rml_meta.evaluation.intervals import mean_interval

SAYS = 0.2
"""A probe says the label where it is this far above chance in its own environment."""

LOST = 0.5
"""It is of no use elsewhere where the exchange costs at least this share of what it was above chance."""


@dataclass(frozen=True, eq=False)
class EnvironmentReport:
    """What the probes say.

    Attributes:
        table: (E, E) float64, accuracy of the probe of environment i on images of environment j, 0 to 1.
        chance: 1 over the number of classes.
        within: Mean accuracy in the probe's own environment.
        across: Mean accuracy in the others.
        interval: Half width of the confidence interval of `within - across`, over tasks.
        helps: Whether the environments are such as robust meta-learning was found to help with.
    """

    table: Tensor
    chance: float
    within: float
    across: float
    interval: float

    @property
    def helps(self) -> bool:
        """Whether what says the label in one environment is of no use in the others."""
        lost = self.within - self.across - self.interval
        return self.within - self.chance >= SAYS and lost >= LOST * (self.within - self.chance)

    def __str__(self) -> str:
        own, other, chance = (f"{100 * value:.0f} %" for value in (self.within, self.across, self.chance))
        if self.helps:
            return (
                f"Colour, brightness and contrast say the label in one environment ({own}, chance {chance}) and not in "
                f"the others ({other}): here robust meta-learning was found to help much."
            )
        if self.within - self.chance >= SAYS:
            return (
                f"Colour, brightness and contrast say the label ({own}, chance {chance}), and still do in the other "
                f"environments ({other}): what misleads is shared by all. No gain over MAML was found there."
            )
        return (
            f"Colour, brightness and contrast hardly say the label ({own}, chance {chance}; in other environments "
            f"{other}): nothing here misleads. No gain over MAML is expected."
        )


def nuisance_statistics(images: Tensor) -> Tensor:
    """Statistics (*B, 2 C + 1) of images (*B, C, H, W) that are no shape.

    Mean and standard deviation of each channel, and the mean difference of neighbouring pixels.
    """
    mean, std = images.mean((-2, -1)), images.std((-2, -1))
    edges = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((-3, -2, -1))
    return torch.cat([mean, std, edges[..., None]], -1)


def inspect_environments(
    episodes: Iterable[EpisodeLike],
    *,
    statistics: Callable[[Tensor], Tensor] = nuisance_statistics,
    level: float = 0.95,
) -> EnvironmentReport:
    """Probe tasks of E environments, (*G, E) leading dimensions, for a nuisance that says the label.

    Probes are fitted to support sets and tested on query sets, so both should have several images a class.

    Args:
        episodes: At least two tasks, of images that are not normalised by environment.
        statistics: Images (*B, C, H, W) to what may mislead, (*B, F).
        level: Of the interval.

    Raises:
        ValueError: There are fewer than two environments, or two tasks.
    """
    parts, ways = [], 2
    for episode in episodes:
        leading = episode.support_y.shape[:-1]
        if not leading or leading[-1] < 2:
            raise ValueError(f"tasks have leading dimensions {tuple(leading)}: expected (*groups, E) of 2 or more")
        ways = int(episode.support_y.max()) + 1
        x, q = (statistics(value).double().flatten(0, -4) for value in (episode.support_x, episode.query_x))
        parts.append((x, episode.support_y.flatten(0, -3), q, episode.query_y.flatten(0, -3)))
    if not parts:
        raise ValueError("there are no tasks: expected two or more")
    table = _exchange(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)), ways=ways)
    own = table.diagonal(dim1=-2, dim2=-1).mean(-1)
    count = table.shape[-1]
    others = (table.sum((-2, -1)) - own * count) / (count * (count - 1))
    _, half = mean_interval(own - others, level)
    return EnvironmentReport(table.mean(0), 1 / ways, float(own.mean()), float(others.mean()), half)


def _exchange(x: Tensor, y: Tensor, q: Tensor, qy: Tensor, *, ways: int) -> Tensor:
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
    """Class means (G, N, F) of one environment as another shows them, by the affine map that fits all tasks best."""
    x, y = source.flatten(0, 1), target.flatten(0, 1)
    centre, goal = x.mean(0), y.mean(0)
    gram = (x - centre).T @ (x - centre)
    ridge = 1e-3 * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(x.shape[-1], dtype=x.dtype)
    change = torch.linalg.solve(gram + ridge, (x - centre).T @ (y - goal))
    return (source - centre) @ change + goal
