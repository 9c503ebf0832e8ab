r"""Will robust meta-learning help here? Whether the environments differ in a nuisance that says the label.

It was found to help where what misleads in one environment is of no use in the others. That can be seen before any
training: fit a small classifier (a probe) to the statistics of the images that are no shape, as colour, brightness and
contrast, in each environment of a task, and exchange the probes between environments. What a transform does to the
statistics, alike in every task, is taken into account first: it is no relation to the label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rml_meta.episode import EpisodeLike
from rml_meta.evaluation.intervals import mean_interval
from rml_meta.evaluation.probes import exchange, misleading, own_and_others, place_statistics

Statistics = Callable[[Tensor], Tensor]

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
        cue: What the probes were given, in words.
        helps: Whether the environments are such as robust meta-learning was found to help with.
    """

    table: Tensor
    chance: float
    within: float
    across: float
    interval: float
    cue: str = "Colour, brightness and contrast"

    @property
    def helps(self) -> bool:
        """Whether what says the label in one environment is of no use in the others."""
        lost = self.within - self.across - self.interval
        return self.within - self.chance >= SAYS and lost >= LOST * (self.within - self.chance)

    def __str__(self) -> str:
        own, other, chance = (f"{100 * value:.0f} %" for value in (self.within, self.across, self.chance))
        if self.helps:
            return (
                f"{self.cue} say the label in one environment ({own}, chance {chance}) and not in "
                f"the others ({other}): here robust meta-learning was found to help much."
            )
        if self.within - self.chance >= SAYS:
            return (
                f"{self.cue} say the label ({own}, chance {chance}), and still do in the other "
                f"environments ({other}): what misleads is shared by all. No gain over MAML was found there."
            )
        return (
            f"{self.cue} hardly say the label ({own}, chance {chance}; in other environments "
            f"{other}): nothing here misleads. No gain over MAML is expected."
        )


def nuisance_statistics(images: Tensor) -> Tensor:
    """Statistics (*B, 2 C + 1) of images (*B, C, H, W) that are no shape.

    Mean and standard deviation of each channel, and the mean difference of neighbouring pixels.
    """
    rows, columns = images.shape[-2:]
    mean, std = images.mean((-2, -1)), images.std((-2, -1), correction=min(1, rows * columns - 1))
    edges = images.diff(dim=-2).abs().sum((-3, -2, -1)) / max(1, (rows - 1) * columns * images.shape[-3])
    return torch.cat([mean, std, edges[..., None]], -1)


def inspect_environments(
    episodes: Iterable[EpisodeLike],
    *,
    statistics: Statistics | None = None,
    level: float = 0.95,
) -> EnvironmentReport:
    """Probe tasks of E environments, (*G, E) leading dimensions, for a nuisance that says the label.

    Probes are fitted to support sets and tested on query sets, so both should have several images a class.

    Args:
        episodes: At least two tasks, of images that are not normalised by environment.
        statistics: Images (*B, C, H, W) to what may mislead, (*B, F). By default colour, brightness and contrast, then
            the brightness of each of 49 places. Places say the class by its shape too, which misleads nobody: those
            are probed whose own probes lose most elsewhere, as half of the tasks show, on the other half.
        level: Of the interval.

    Raises:
        ValueError: There are fewer than two environments, or two tasks, or statistics are not finite.
    """
    functions = [nuisance_statistics, place_statistics] if statistics is None else [statistics]
    ways, (probed, *places) = _tasks(episodes, functions)
    cue = "Colour, brightness and contrast" if statistics is None else "The statistics given"
    report = _report(probed, cue, ways, level)
    if report.helps or not places:
        return report
    return _of_places(places[0], ways, level) or report


Tasks = list[Tensor]
"""Statistics (G, E, S, F) and labels (G, E, S) of support images, and the same of query images."""


def _tasks(episodes: Iterable[EpisodeLike], functions: Sequence[Statistics]) -> tuple[int, list[Tasks]]:
    """The number of classes, and of each function the tasks by its statistics."""
    parts, ways = [], 2
    for episode in episodes:
        leading = episode.support_y.shape[:-1]
        if not leading or leading[-1] < 2:
            raise ValueError(f"tasks have leading dimensions {tuple(leading)}: expected (*groups, E) of 2 or more")
        ways = int(episode.support_y.max()) + 1
        y, qy = (value.reshape(-1, *value.shape[-2:]) for value in (episode.support_y, episode.query_y))
        for function in functions:
            x, q = (_measured(function, value) for value in (episode.support_x, episode.query_x))
            parts.append((x, y, q, qy))
    if not parts:
        raise ValueError("there are no tasks: expected two or more")
    by_function = (zip(*parts[k :: len(functions)], strict=True) for k in range(len(functions)))
    tasks = [[torch.cat(part).cpu() for part in of_one] for of_one in by_function]
    if len(tasks[0][0]) < 2:
        raise ValueError("there is one task: expected two or more")
    return ways, tasks


def _measured(function: Statistics, images: Tensor) -> Tensor:
    """(G, E, M, F) float64 statistics of images (*groups, E, M, C, H, W), bytes or floats."""
    found = function(images if images.is_floating_point() else images.float()).double()
    if not bool(found.isfinite().all()):
        raise ValueError("statistics of images are not finite: look for NaN or infinity in the images")
    return found.reshape(-1, *found.shape[-3:])


def _report(tasks: Tasks, cue: str, ways: int, level: float) -> EnvironmentReport:
    x, y, q, qy = tasks
    table = exchange(x, y, q, qy, ways=ways)
    own, others = own_and_others(table)
    _, half = mean_interval(own - others, level)
    return EnvironmentReport(table.mean(0), 1 / ways, float(own.mean()), float(others.mean()), half, cue)


def _of_places(tasks: Tasks, ways: int, level: float) -> EnvironmentReport | None:
    """What the places say that mislead, where that is so: found in half of the tasks, probed in the other half."""
    half = len(tasks[0]) // 2
    if half < 2:
        return None
    x, y, q, qy = (value[:half] for value in tasks)
    chosen = misleading(x, y, q, qy, ways=ways)
    if not len(chosen):
        return None
    x, y, q, qy = (value[half:] for value in tasks)
    report = _report([x[..., chosen], y, q[..., chosen], qy], "Single places of the images", ways, level)
    return report if report.helps else None
