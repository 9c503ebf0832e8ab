"""Batches that are a pure function of (seed, epoch, number)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError, UserError
from robustvision_core.run.runtime import derive_seed

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(B, C, H, W) float images in [0, 1] and a generator on their device -> images of the same batch size."""

Statistic = float | Sequence[float] | Tensor


class Batch(NamedTuple):
    """What a training step gets.

    Attributes:
        images: (B, C, H, W) float32, normalised.
        labels: (B,) int64.
        index: (B,) int64, position of each sample in the set.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.index, of no use here


class DeviceBatches:
    """Batches of a set that lives on the device whole, as uint8, and is batched there by index.

    Order and augmentation depend on (seed, epoch, batch number) alone, so starting at `epoch(e, start=b)` gives
    exactly the batches that an uninterrupted run would have had, with no generator state to save.

    Of `world_size` processes each gets an equal, contiguous part of every global batch, augmented as one process
    would have augmented it: together they see exactly the batches of one process. Where the last batch does not
    divide, its last `size % world_size` samples are left out of that epoch (with `shuffle` others each epoch), so
    that every process has the same number of batches of one size and no sample comes twice. To evaluate on every
    sample, use `world_size=1`.

    Args:
        data: The set; it is moved to `device`.
        batch_size: Of the global batch, all processes together.
        shuffle: A new random order every epoch; else the order of the set.
        seed: Of the order and the augmentation.
        drop_last: Leave out the last batch where it is smaller.
        rank: Number of this process.
        world_size: Number of processes.
        mean: Of each channel, (C,) or one number, on the scale 0..1; None computes it from `data`. Give the
            training set's to the batches of the test set.
        std: As `mean`.
        augment: Applied to images scaled to 0..1, before they are normalised, so that zero padding is black; see
            `Augment`.
        device: Where the set and the batches live.

    Attributes:
        mean: (C,) float32, the mean that images are normalised with.
        std: (C,) float32, as `mean`.

    Raises:
        UserError: `batch_size` is not a positive multiple of `world_size`, or there is no such rank.
        DataError: `mean` or `std` has another number of channels, or `std` is not positive.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
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
        self.order = BatchOrder(len(data), batch_size, shuffle, seed, drop_last, rank, world_size)
        self.data = data.to(device)
        self.augment = augment
        self.mean, self.std = resolve_stats(self.data, mean, std)
        self._generator = torch.Generator(self.data.device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on."""
        order = self.order.samples(epoch).to(self.data.device)
        for number in range(start, len(self)):
            whole, part = self.order.cut(number)
            yield self._batch(order[whole], part, epoch, number)

    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> Batch:
        index = rows[part]
        if self.augment is None:
            images = normalise(self.data.images.index_select(0, index), self.mean, self.std)
        else:
            # augmenting the global batch in every process is what makes their parts agree, and cheap beside a step
            self._generator.manual_seed(derive_seed(self.order.seed, "augment", epoch, number))
            images = self.augment(self.data.images.index_select(0, rows).float().div_(255), self._generator)[part]
            images = normalise(images, self.mean, self.std, scale=1)
        return Batch(images, self.data.labels[index], index)


class BatchOrder:
    """Which samples make which batch; arguments as in `DeviceBatches`, `count` is the set's size."""

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


def channel_stats(data: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all pixels, (C,) float32 each on the scale 0..1.

    Computed exactly from the histogram of grey levels. The deviation is the population's; that of a constant channel
    is given as 1, so that dividing by it is harmless.

    Raises:
        DataError: The set is empty.
    """
    if len(data) == 0:
        raise DataError(f"{data.name} is empty: it has no mean and standard deviation")
    counts = [torch.bincount(data.images[:, c].reshape(-1), minlength=256).cpu() for c in range(data.shape[0])]
    share = torch.stack(counts).double()
    share = share / share.sum(1, keepdim=True)
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    std = torch.where((share > 0).sum(1) > 1, std, 1.0)
    return mean.float().to(data.device), std.float().to(data.device)


def normalise(images: Tensor, mean: Tensor, std: Tensor, scale: float = 255) -> Tensor:
    """`(images / scale - mean) / std` as one affine map.

    Args:
        images: (B, C, H, W) uint8, or float with `scale=1` where they are on the scale 0..1 already.
        mean: (C,) float on the scale 0..1.
        std: (C,) float, positive.
        scale: The value of white.

    Returns:
        (B, C, H, W) of the type of `mean`.
    """
    factor, offset = (1 / (scale * std))[:, None, None], (-mean / std)[:, None, None]
    # cast first, then in place: one mixed-type product was measured 20 times slower on the CPU
    return images.to(mean.dtype, copy=True).mul_(factor).add_(offset)


def resolve_stats(data: ImageSet, mean: Statistic | None, std: Statistic | None) -> tuple[Tensor, Tensor]:
    """`mean` and `std` as (C,) float32 on the set's device, computed by `channel_stats` where None."""
    computed = channel_stats(data) if mean is None or std is None else (mean, std)
    chosen = [given if given is not None else own for given, own in zip((mean, std), computed, strict=True)]
    mean_of, std_of = (channel_vector(value, data.shape[0], data.device) for value in chosen)
    if bool((std_of <= 0).any()):
        raise DataError(f"std must be positive, got {std_of.tolist()}")
    return mean_of, std_of


def channel_vector(value: Statistic, channels: int, device: str | torch.device = "cpu") -> Tensor:
    """`value` as (channels,) float32; one number stands for all channels."""
    vector = torch.as_tensor(value, dtype=torch.float32, device=device).reshape(-1)
    if len(vector) not in (1, channels):
        raise DataError(f"mean and std need 1 or {channels} values, one a channel, got {len(vector)}")
    return vector.expand(channels).clone()
