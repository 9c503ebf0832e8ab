"""A few-shot task: a support set to learn from, a query set to be judged on."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class EpisodeLike(Protocol):
    """Whatever has an episode's first four fields, as `robustvision_core.data.EpisodeBatch` does."""

    @property
    def support_x(self) -> Tensor:
        """(*T, S, ...) inputs."""
        ...

    @property
    def support_y(self) -> Tensor:
        """(*T, S) labels, or (*T, S, D) targets."""
        ...

    @property
    def query_x(self) -> Tensor:
        """(*T, Q, ...) inputs."""
        ...

    @property
    def query_y(self) -> Tensor:
        """(*T, Q) labels, or (*T, Q, D) targets."""
        ...


class Episode(NamedTuple):
    """One task, or any number of tasks of one size along leading dimensions.

    Where the tasks come in groups, one task an environment, the leading dimensions are (G, E): tasks of one group
    share their classes and label order, and position e is the same environment in every group.

    Attributes:
        support_x: (*T, S, ...) inputs, S = ways x shots.
        support_y: (*T, S) int64 labels in `[0, ways)`; for regression floating-point targets (*T, S, D), of the shape
            of the model's outputs, or (*T, S) where the loss takes them.
        query_x: (*T, Q, ...) inputs.
        query_y: (*T, Q) int64 labels in `[0, ways)`, or targets (*T, Q, D).
        env: (*T,) int64 number of each task's environment, or None. Methods go by position; this is for records.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    env: Tensor | None = None


def flatten_tasks(episode: EpisodeLike) -> tuple[Episode, tuple[int, ...]]:
    """The episode with its leading dimensions merged into one, (T, ...), and those dimensions; T = 1 for a lone task.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    leading = leading_of(episode.support_x, episode.support_y)
    for side, x, y in (
        ("support", episode.support_x, episode.support_y),
        ("query", episode.query_x, episode.query_y),
    ):
        check_set(side, x, y)
        if leading_of(x, y) != leading:
            raise ValueError(
                f"support_y has leading dimensions {leading} but {side}_y {leading_of(x, y)}: both need one a task"
            )
    n = len(leading)
    merged = [merge(value, n) for value in (episode.support_x, episode.support_y, episode.query_x, episode.query_y)]
    return Episode(*merged), leading


def check_set(side: str, x: Tensor, y: Tensor) -> None:
    """Raise a ValueError unless x (*T, M, ...) has an input for each label of y (*T, M) or target of y (*T, M, D)."""
    samples = y.dim() - target_dims(x, y)
    if samples < 1 or x.shape[:samples] != y.shape[:samples]:
        raise ValueError(
            f"{side}_x {tuple(x.shape)} does not fit {side}_y {tuple(y.shape)}: expected (*tasks, M, ...) inputs for "
            "(*tasks, M) labels, or for (*tasks, M, D) floating-point targets"
        )


def target_dims(x: Tensor, y: Tensor) -> int:
    """Number of dimensions of one target in y, of inputs x (*T, M, ...): 0 of labels (*T, M), 1 of targets (*T, M, D).

    Floating-point targets may be both. Where the shapes allow either, inputs are taken for vectors or images: (T, M)
    beside (T, M, F) or (T, M, C, H, W) are numbers, (M, D) beside (M, C, H, W) are vectors.
    """
    if not y.is_floating_point() or y.dim() < 2:
        return 0
    either = x.dim() > y.dim() and x.shape[: y.dim()] == y.shape
    return 0 if either and x.dim() - y.dim() != 2 else 1


def leading_of(x: Tensor, y: Tensor) -> tuple[int, ...]:
    """The dimensions T before those of the samples of labels or targets y of inputs x."""
    return tuple(y.shape[: y.dim() - 1 - target_dims(x, y)])


def merge(value: Tensor, leading: int) -> Tensor:
    """`value` with its first `leading` dimensions merged into one; a new one of size 1 where there are none."""
    return value.flatten(0, leading - 1) if leading else value[None]


def count_ways(labels: Tensor, ways: int | None = None) -> int:
    """`ways`, or where it is None the highest label + 1, which waits for the device."""
    return int(labels.max()) + 1 if ways is None else ways
