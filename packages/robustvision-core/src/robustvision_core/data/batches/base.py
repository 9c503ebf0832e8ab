"""What all batches have in common: they are a pure function of (seed, epoch, number)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, TypedDict, TypeVar

import torch
from torch import Tensor

from robustvision_core.data.batches.statistics import Statistic, normalise, resolve_stats
from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import derive_seed

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(B, C, H, W) float images in [0, 1] and a generator on their device -> images of the same batch size."""

B = TypeVar("B")


class BatchOptions(TypedDict, total=False):
    """The options of all batches; `IndexedBatches` says what they mean."""

    shuffle: bool
    seed: int
    drop_last: bool
    rank: int
    world_size: int
    mean: Statistic | None
    std: Statistic | None
    augment: Augment | None
    device: str | torch.device


class IndexedBatches(ABC, Generic[B]):
    """Batches of a set whose samples have a number.

    Order and augmentation depend on (seed, epoch, batch number) alone, so starting at `epoch(e, start=b)` gives
    exactly the batches that an uninterrupted run would have had, with no generator state to save.

    Of `world_size` processes each gets an equal, contiguous part of every global batch: together they see exactly the
    batches of one process. Where the last batch does not divide, its last `size % world_size` samples are left out of
    that epoch (with `shuffle` others each epoch), so that every process has the same number of batches of one size and
    no sample comes twice. To evaluate on every sample, use `world_size=1`.

    Args:
        count: Samples in the set.
        batch_size: Of the global batch, all processes together.
        pixels: Images to compute the statistics from; called where `mean` or `std` is None with True, else with False
            for one image or more, which tell the channels.
        shuffle: A new random order every epoch; else the order of the set.
        seed: Of the order and the augmentation.
        drop_last: Leave out the last batch where it is smaller.
        rank: Number of this process.
        world_size: Number of processes.
        mean: Of each channel, (C,) or one number, on the scale 0..1; None computes it from the set. Give the training
            set's to the batches of the test set.
        std: As `mean`.
        augment: Applied to images scaled to 0..1, before they are normalised, so that zero padding is black; see
            `Augment`.
        device: Where the batches live.

    Attributes:
        mean: (C,) float32, the mean that images are normalised with.
        std: (C,) float32, as `mean`.

    Raises:
        UserError: `batch_size` is not a positive multiple of `world_size`, or there is no such rank.
        DataError: `mean` or `std` has another number of channels, or `std` is not positive.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        pixels: Callable[[bool], ImageSet],
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.order = BatchOrder(count, batch_size, shuffle, seed, drop_last, rank, world_size)
        self.augment = augment
        stats = resolve_stats(pixels(mean is None or std is None), mean, std)
        self.mean, self.std = (value.to(device) for value in stats)
        self._generator = torch.Generator(device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[B]:
        """The batches of one epoch from number `start` on."""

    def _prepared(self, images: Callable[[slice], Tensor], part: slice, *names: int) -> Tensor:
        """A part of the images of a batch, augmented and normalised.

        Args:
            images: Gives the images (B, C, H, W) uint8 in a part of the batch.
            part: The part wanted.
            names: What the augmentation's seed is derived from.
        """
        if self.augment is None:
            return normalise(images(part), self.mean, self.std)
        # augmenting the global batch in every process is what makes their parts agree, and cheap beside a step
        self._generator.manual_seed(derive_seed(self.order.seed, "augment", *names))
        augmented = self.augment(images(slice(None)).float().div_(255), self._generator)[part]
        return normalise(augmented, self.mean, self.std, scale=1)


class MemoryBatches(IndexedBatches[B]):
    """Batches of a set in memory, each made when it is asked for; arguments as of `IndexedBatches`."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[B]:
        """The batches of one epoch from number `start` on."""
        order = self.order.samples(epoch).to(self.mean.device)
        for number in range(start, len(self)):
            whole, part = self.order.cut(number)
            yield self._batch(order[whole], part, epoch, number)

    @abstractmethod
    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> B:
        """This process's `part` of the global batch of the samples `rows` (G,) int64."""


class BatchOrder:
    """Which samples make which batch; arguments as of `IndexedBatches`, `count` is the set's size."""

    def __init__(
        self, count: int, batch_size: int, shuffle: bool, seed: int, drop_last: bool, rank: int, world_size: int
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size:
            raise UserError(f"there is no rank {rank} among {world_size} processes")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(f"batch_size is {batch_size}: expected a positive multiple of the {world_size} processes")
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        last = count % batch_size
        used = count - (last if drop_last else last % world_size)
        self.used = used

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def samples(self, epoch: int) -> Tensor:
        """(count,) int64 on the CPU: the order of the samples in one epoch, the same in every process."""
        if not self.shuffle:
            return torch.arange(self.count)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        return torch.randperm(self.count, generator=generator)

    def cut(self, number: int) -> tuple[slice, slice]:
        """Of global batch `number`: its place in the epoch's order, and this process's part within the batch."""
        start = number * self.batch_size
        part = (min(start + self.batch_size, self.used) - start) // self.world_size
        return slice(start, min(start + self.batch_size, self.count)), slice(self.rank * part, (self.rank + 1) * part)
