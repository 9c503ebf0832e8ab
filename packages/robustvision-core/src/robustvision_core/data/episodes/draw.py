"""Which images make which few-shot episode: a pure function of (seed, number)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError, UserError
from robustvision_core.run.runtime import derive_seed


class EpisodeIndex(NamedTuple):
    """The images of an episode, by position in the set; sorted by class, label 0 first.

    Attributes:
        support: (ways * shots,) int64, or (E, ways * shots) of E environments.
        query: (ways * queries,) or (E, ways * queries) int64.
    """

    support: Tensor
    query: Tensor


class EpisodeDraw:
    """Draws images for episodes: `draw(number)` depends on the seed and the number alone.

    Classes and their order are drawn for each episode; no image comes twice in one, whatever its environment.

    Args:
        data: The set. Classes without any image are left out.
        ways: Classes an episode, N.
        shots: Support images a class, K.
        queries: Query images a class.
        seed: Of all draws.
        environments: Number E of environments that share the classes, each with images of its own; None has none.
        env_of: (len(data),) int64, the environment of each image from 0: draws each environment's images from its
            own, of the same classes.
        groups: (num_classes,) int64, the group of each class from 0: each group is an environment with classes of
            its own, as with several data sets joined to one.

    Raises:
        UserError: A number is not positive, or more than one of the last three is given.
        DataError: A class has too few images (the message names it and the counts), or there are too few classes.
    """

    def __init__(
        self,
        data: ImageSet,
        ways: int,
        shots: int,
        queries: int,
        *,
        seed: int = 0,
        environments: int | None = None,
        env_of: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        if min(ways, shots, queries) < 1 or (environments is not None and environments < 1):
            raise UserError(f"ways, shots, queries and environments must be positive, got {ways}, {shots}, {queries}")
        if sum(given is not None for given in (environments, env_of, groups)) > 1:
            raise UserError("give one of environments, env_of and groups: each says what the environments are")
        self.ways, self.shots, self.queries, self.seed = ways, shots, queries, seed
        self.env_of = _ids(env_of, "env_of", len(data))
        self.groups = _ids(groups, "groups", data.num_classes)
        given = next((ids for ids in (self.env_of, self.groups) if ids is not None), None)
        self.environments = environments if given is None else int(given.max()) + 1
        labels = data.labels.cpu()
        present = torch.bincount(labels, minlength=data.num_classes) > 0
        pool = labels if self.env_of is None else labels * self._count + self.env_of
        pools = data.num_classes * (1 if self.env_of is None else self._count)
        self.counts = torch.bincount(pool, minlength=pools)
        self.starts = self.counts.cumsum(0) - self.counts
        self.order = pool.argsort(stable=True)
        self.classes = self._classes(present, data)
        self._check_counts(present, data)

    @property
    def _count(self) -> int:
        return 1 if self.environments is None else self.environments

    @property
    def _images(self) -> int:
        """How many images of one pool an episode takes."""
        shared = self.env_of is None and self.groups is None
        return (self.shots + self.queries) * (self._count if shared else 1)

    def draw(self, number: int) -> EpisodeIndex:
        """The images of episode `number`."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "episode", number))
        pools = self._pools(generator)
        counts = self.counts[pools]
        # the smallest of random keys are a draw without replacement; images past the pool's end come last
        width = int(counts.max())
        keys = torch.rand(*pools.shape, width, generator=generator)
        keys.masked_fill_(torch.arange(width) >= counts[..., None], 2.0)
        places = keys.topk(self._images, -1, largest=False).indices
        index = self.order[self.starts[pools][..., None] + places]
        if self.env_of is None and self.groups is None:  # (N, E * images) -> (E, N, images)
            index = index.view(self.ways, self._count, -1).transpose(0, 1)
        support, query = index.split([self.shots, self.queries], -1)
        if self.environments is None:
            support, query = support[0], query[0]
        return EpisodeIndex(support.flatten(-2), query.flatten(-2))

    def labels(self) -> tuple[Tensor, Tensor]:
        """Labels of the support (ways * shots,) and of the query images (ways * queries,), the same in each episode."""
        ways = torch.arange(self.ways)
        return ways.repeat_interleave(self.shots), ways.repeat_interleave(self.queries)

    def _pools(self, generator: torch.Generator) -> Tensor:
        """Pools to draw from: (N,) classes, or (E, N) with environments of their own images."""
        chosen = [ids[torch.randperm(len(ids), generator=generator)[: self.ways]] for ids in self.classes]
        if self.groups is not None:
            return torch.stack(chosen)
        if self.env_of is None:
            return chosen[0]
        return chosen[0] * self._count + torch.arange(self._count)[:, None]

    def _classes(self, present: Tensor, data: ImageSet) -> list[Tensor]:
        """The classes to draw from; a list of each group's with groups."""
        ids = present.nonzero()[:, 0]
        parts = [ids] if self.groups is None else [ids[self.groups[ids] == g] for g in range(self._count)]
        for number, part in enumerate(parts):
            if len(part) < self.ways:
                of = data.name if self.groups is None else f"{data.name}, group {number}"
                raise DataError(
                    f"{of} has {len(part)} classes with images, episodes of {self.ways} ways need at least {self.ways}"
                    ": lower ways, or give it more classes"
                )
        return parts

    def _check_counts(self, present: Tensor, data: ImageSet) -> None:
        needed = self._images
        each = self.counts.view(data.num_classes, -1)
        short = ((each < needed) & present[:, None]).nonzero()
        if len(short) == 0:
            return
        label, env = (int(value) for value in short[0])
        where = "" if self.env_of is None else f" in environment {env}"
        times = f" for each of {self._count} environments" if needed > self.shots + self.queries else ""
        more = "" if len(short) == 1 else f" ({len(short)} classes or environments are short)"
        raise DataError(
            f"{data.name}: class {data.classes[label]!r} has {int(each[label, env])} images{where}, {self.shots} shots "
            f"and {self.queries} queries{times} need {needed}{more}: lower one of them, or leave the class out"
        )


def _ids(ids: Tensor | None, name: str, length: int) -> Tensor | None:
    if ids is None:
        return None
    if ids.shape != (length,) or ids.dtype != torch.int64 or length == 0 or int(ids.min()) < 0:
        raise DataError(f"{name} must be ({length},) int64 numbers from 0, got {tuple(ids.shape)} {ids.dtype}")
    return ids.cpu()
