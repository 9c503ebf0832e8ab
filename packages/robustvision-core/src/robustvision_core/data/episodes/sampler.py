"""Few-shot episodes from a set on the device, the same for every order, worker and number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustvision_core.data.batches.base import Augment
from robustvision_core.data.batches.statistics import Statistic, normalise, resolve_stats
from robustvision_core.data.episodes.draw import EpisodeDraw, EpisodeIndex
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.datasets import from_dataset
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import derive_seed


class Environments(Protocol):
    """How images look in each of E environments; must depend on the generator alone."""

    def __len__(self) -> int:
        """E."""
        ...

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (E, M, C, H, W) in [0, 1] with labels (E, M), as their environments show them."""
        ...


class EpisodeBatch(NamedTuple):
    """Episodes along a first dimension G, with environments along a second, E, where there are any.

    Attributes:
        support_x: (G[, E], ways * shots, C, H, W) float32, normalised.
        support_y: (G[, E], ways * shots) int64 in [0, ways).
        query_x: (G[, E], ways * queries, C, H, W) float32.
        query_y: (G[, E], ways * queries) int64.
        env: (G, E) int64 number of the environment, or None.
        support_index: As `support_y`, position of each image in the set.
        query_index: As `query_y`.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    env: Tensor | None
    support_index: Tensor
    query_index: Tensor


class EpisodeSampler:
    """Batches of episodes, each a function of (seed, its number) alone.

    The set lives on the device as uint8. Episode i of epoch e has number `e * episodes + i`, or i in every epoch with
    `fixed`, so that every method meets the same test episodes. Of `world_size` processes each makes an equal,
    contiguous part of every batch: together they see what one process would.

    Images are scaled to [0, 1], shown through the environments, augmented, and normalised, in this order.

    Args:
        data: The set to draw from, as the base, validation or novel classes; or any torch Dataset of (image, label),
            read into memory by `from_dataset`.
        ways: Classes an episode.
        shots: Support images a class.
        queries: Query images a class.
        episodes: How many an epoch.
        batch_size: Episodes a batch, all processes together. With environments an episode is one group of E tasks.
        seed: Of the draws.
        fixed: The same episodes in every epoch.
        environments: Transforms of environments that share the classes, as those of `rml_meta`. Each environment gets
            images of its own.
        env_of: (len(data),) int64, the environment of each image, instead.
        groups: (num_classes,) int64, a group of each class, instead: each group is an environment.
        rank: Number of this process.
        world_size: Number of processes.
        mean: Of each channel on the scale 0..1; None computes it from `data`. Give the training set's to others.
        std: As `mean`.
        augment: Applied to the images of one episode together, (M, C, H, W) in [0, 1].
        device: Where the set and the batches live.

    Raises:
        UserError: A number is wrong, or batch and episodes do not divide by the number of processes.
        DataError: A class has too few images for an episode; the message names it.

    Example:
        >>> images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
        >>> data = ImageSet(images, torch.arange(40) % 4, ("a", "b", "c", "d"))
        >>> batch = next(EpisodeSampler(data, ways=3, shots=1, queries=5, episodes=10, batch_size=2).epoch(0))
        >>> batch.query_x.shape
        torch.Size([2, 15, 1, 8, 8])
    """

    def __init__(
        self,
        data: ImageSet | Dataset[Any],
        ways: int,
        shots: int,
        queries: int,
        episodes: int,
        *,
        batch_size: int = 1,
        seed: int = 0,
        fixed: bool = False,
        environments: Environments | None = None,
        env_of: Tensor | None = None,
        groups: Tensor | None = None,
        rank: int = 0,
        world_size: int = 1,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size:
            raise UserError(f"there is no rank {rank} among {world_size} processes")
        if min(episodes, batch_size) < 1 or batch_size % world_size or episodes % world_size:
            raise UserError(
                f"episodes {episodes} and batch_size {batch_size} must be positive multiples of {world_size} processes"
            )
        if not isinstance(data, ImageSet):
            data = from_dataset(data)
        count = None if environments is None else len(environments)
        self.draws = EpisodeDraw(
            data, ways, shots, queries, seed=seed, environments=count, env_of=env_of, groups=groups
        )
        self.data, self.device = (data if data.is_mapped else data.to(device)), torch.device(device)
        self.episodes, self.batch_size, self.seed, self.fixed = episodes, batch_size, seed, fixed
        self.environments, self.augment = environments, augment
        self.rank, self.world_size = rank, world_size
        self.mean, self.std = (value.to(device) for value in resolve_stats(self.data, mean, std))
        self._generator = torch.Generator(device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.episodes // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[EpisodeBatch]:
        """The batches of one epoch from number `start` on."""
        for number in range(start, len(self)):
            yield self.batch(self.numbers(epoch, number))

    def numbers(self, epoch: int, batch: int) -> list[int]:
        """Numbers of this process's episodes in a batch."""
        first = batch * self.batch_size
        part = (min(first + self.batch_size, self.episodes) - first) // self.world_size
        first += self.rank * part + (0 if self.fixed else epoch * self.episodes)
        return list(range(first, first + part))

    def indices(self, numbers: Sequence[int]) -> EpisodeIndex:
        """The images of the episodes of these numbers, (G[, E], M) each on the CPU, without loading them."""
        drawn = [self.draws.draw(number) for number in numbers]
        return EpisodeIndex(*(torch.stack(part) for part in zip(*drawn, strict=True)))

    def batch(self, numbers: Sequence[int]) -> EpisodeBatch:
        """The episodes of these numbers."""
        index = self.indices(numbers)
        device = self.device
        support, query = (part.to(device, non_blocking=True) for part in index)
        labels = [
            y.to(device).expand(part.shape) for y, part in zip(self.draws.labels(), (support, query), strict=True)
        ]
        images = self._images(torch.cat([support, query], -1), torch.cat(labels, -1), numbers)
        support_x, query_x = images.split([support.shape[-1], query.shape[-1]], support.dim() - 1)
        count = self.draws.environments
        env = None if count is None else torch.arange(count, device=device).expand(len(numbers), -1)
        return EpisodeBatch(support_x, labels[0], query_x, labels[1], env, support, query)

    def _images(self, index: Tensor, labels: Tensor, numbers: Sequence[int]) -> Tensor:
        """Images (G[, E], M, C, H, W) as a method gets them."""
        raw = self.data.images.index_select(0, index.flatten().to(self.data.device)).to(self.device)
        if self.environments is None and self.augment is None:
            return normalise(raw, self.mean, self.std).unflatten(0, index.shape)
        images = raw.float().div_(255).unflatten(0, index.shape)
        shown = [self._show(*episode) for episode in zip(images, labels, numbers, strict=True)]
        images = torch.stack(shown)
        return normalise(images.flatten(0, index.dim() - 1), self.mean, self.std, scale=1).unflatten(0, index.shape)

    def _show(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        """The images of one episode in their environments, augmented."""
        self._generator.manual_seed(derive_seed(self.seed, "environment", number))
        if self.environments is not None:
            images = self.environments(images, labels, self._generator)
        if self.augment is None:
            return images
        leading = images.shape[:-3]
        return self.augment(images.flatten(0, len(leading) - 1), self._generator).unflatten(0, leading)
