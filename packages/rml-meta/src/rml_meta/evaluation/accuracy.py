"""Accuracy over episodes, the same for every method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rml_meta.episode import EpisodeLike
from rml_meta.evaluation.intervals import mean_interval
from rml_meta.methods.base import FewShotMethod


@dataclass(frozen=True, eq=False)
class FewShotAccuracy:
    """Accuracy over episodes.

    Attributes:
        mean: Share of right answers, 0 to 1.
        interval: Half width of its confidence interval over episodes of this one trained model. It says nothing of
            another training run: runs differ by more.
        per_episode: (n,) float64 on the CPU, each episode's share.
        level: Of the interval.
        transductive: Whether query images were normalised together.
    """

    mean: float
    interval: float
    per_episode: Tensor
    level: float
    transductive: bool

    def __str__(self) -> str:
        mode = "transductive" if self.transductive else "inductive"
        share = f"{100 * self.mean:.2f} ± {100 * self.interval:.2f} %"
        return f"{share} ({100 * self.level:g} % confidence interval, {len(self.per_episode)} episodes, {mode})"


def evaluate_episodes(
    method: FewShotMethod,
    episodes: Iterable[EpisodeLike],
    *,
    transductive: bool | None = None,
    level: float = 0.95,
) -> FewShotAccuracy:
    """Accuracy of a method over episodes, with the confidence interval of Student's t.

    The method's state is not changed: no parameter, buffer or mode. Hand every method the same seeded episodes.

    Args:
        method: Any few-shot method.
        episodes: With any leading dimensions, on the method's device; each task counts as one.
        transductive: Overrules the method's own: see `FewShotMethod`.
        level: Of the interval.

    Raises:
        ValueError: There are fewer than two tasks, or their targets are no labels.
    """
    before = method.transductive
    method.transductive = before if transductive is None else transductive
    try:
        shares = [_accuracies(method, episode) for episode in episodes]
        used = method.transductive
    finally:
        method.transductive = before
    per_episode = torch.cat(shares).cpu() if shares else torch.zeros(0, dtype=torch.float64)
    mean, half = mean_interval(per_episode, level)
    return FewShotAccuracy(mean, half, per_episode, level, used)


def _accuracies(method: FewShotMethod, episode: EpisodeLike) -> Tensor:
    """Share (T,) of right answers of each task, on its device: only the end waits for it. NaN is no answer."""
    if episode.query_y.is_floating_point():
        raise ValueError("accuracy is of class labels, and these episodes have floating-point targets")
    state = method.fit_support(episode.support_x, episode.support_y)
    logits = method.predict(state, episode.query_x)
    right = (logits.argmax(-1) == episode.query_y) & ~logits.isnan().any(-1)
    return right.double().mean(-1).reshape(-1)
