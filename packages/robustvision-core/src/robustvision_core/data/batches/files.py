"""Batches decoded from files as they are needed, for sets too large for memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustvision_core.data.batches.device import Augment, Batch, BatchOrder, Statistic, normalise, resolve_stats
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.decode import decode, decode_all, usable_cores
from robustvision_core.data.reading.image_files import ImageFiles
from robustvision_core.errors import DataError
from robustvision_core.run.runtime import derive_seed

STATS_FILES = 512  # enough for three digits of a channel's mean
MARGIN = 8 / 7  # a random window of 224 pixels is cut from a shorter side of 256


class FileBatches:
    """Batches of image files, read and decoded by worker processes; otherwise as `DeviceBatches`.

    Order and random crops depend on (seed, epoch, sample) alone, augmentation on (seed, epoch, batch number, rank):
    starting at `epoch(e, start=b)` gives exactly the batches of an uninterrupted run, for any number of workers.
    The processes of a distributed run together see one process's samples and crops, but draw `augment` apart, for
    no process decodes the others' images.

    Args:
        files: What `robustvision_core.data.folder_files` gives.
        batch_size: Of the global batch, all processes together.
        image_size: Height and width of the images.
        random_crop: Resize the shorter side to 8/7 of `image_size` and cut a window anywhere, for training; else
            resize it to `image_size` and cut the middle.
        grey: One channel rather than RGB.
        shuffle: A new random order every epoch.
        seed: Of the order, the crops and the augmentation.
        drop_last: Leave out the last batch where it is smaller.
        rank: Number of this process.
        world_size: Number of processes.
        mean: Of each channel on the scale 0..1; None estimates it from up to 512 evenly spaced files.
        std: As `mean`.
        augment: As for `DeviceBatches`; runs on the device.
        device: Where the batches go.
        workers: Processes that decode; None takes one a core, at most 8; 0 decodes in this process.

    Raises:
        DataError: A file is missing, truncated or no image; here for the files of the estimate, else on iteration.
    """

    def __init__(
        self,
        files: ImageFiles,
        batch_size: int,
        *,
        image_size: int = 224,
        random_crop: bool = False,
        grey: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        mean: Statistic | None = None,
        std: Statistic | None = None,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
        workers: int | None = None,
    ) -> None:
        self.order = BatchOrder(len(files), batch_size, shuffle, seed, drop_last, rank, world_size)
        self.files = files
        self.augment = augment
        self.workers = min(8, usable_cores()) if workers is None else workers
        self._decoder = _Decoder(files, image_size, random_crop, grey, seed)
        sample = _sample(files, image_size, grey, STATS_FILES if mean is None or std is None else 1)
        self.mean, self.std = resolve_stats(sample.to(device), mean, std)
        self._generator = torch.Generator(device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on."""
        order = self.order.samples(epoch)
        cuts = [self.order.cut(number) for number in range(start, len(self))]
        rows = [order[whole][part].tolist() for whole, part in cuts]
        for number, loaded in enumerate(self._loader(epoch, rows), start):
            if isinstance(loaded, str):
                raise DataError(loaded)
            images, index = loaded
            yield self._batch(images, index, epoch, number)

    def _loader(self, epoch: int, rows: list[list[int]]) -> DataLoader[Any]:
        return DataLoader(
            self._decoder,
            batch_sampler=[[(epoch, row) for row in batch] for batch in rows],
            num_workers=min(self.workers, len(rows)),
            collate_fn=_as_it_is,
            pin_memory=self.mean.is_cuda,
            generator=torch.Generator(),  # else it would draw from the global one
        )

    def _batch(self, images: Tensor, index: Tensor, epoch: int, number: int) -> Batch:
        device = self.mean.device
        labels = self.files.labels[index].to(device, non_blocking=True)
        images, index = images.to(device, non_blocking=True), index.to(device, non_blocking=True)
        if self.augment is None:
            return Batch(normalise(images, self.mean, self.std), labels, index)
        self._generator.manual_seed(derive_seed(self.order.seed, "augment", epoch, number, self.order.rank))
        images = self.augment(images.float().div_(255), self._generator)
        return Batch(normalise(images, self.mean, self.std, scale=1), labels, index)


class _Decoder(Dataset[Any]):
    """Decodes the files of whole batches, in the workers."""

    def __init__(self, files: ImageFiles, image_size: int, random_crop: bool, grey: bool, seed: int) -> None:
        self.files, self.image_size, self.random_crop, self.grey, self.seed = files, image_size, random_crop, grey, seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor] | str:
        """Images and positions; or a message, for an exception would leave the worker as a page of traceback."""
        try:
            images = torch.stack([self._image(*key) for key in keys])
        except DataError as error:
            return str(error)
        return images, torch.tensor([row for _, row in keys])

    def _image(self, epoch: int, row: int) -> Tensor:
        path = self.files.paths[row]
        read = partial(decode, path, str(path), grey=self.grey, size=self.image_size)
        if not self.random_crop:
            return read()
        drawn = derive_seed(self.seed, "crop", epoch, row)

        def crop(rows: int, columns: int) -> tuple[int, int]:
            down, right = divmod(drawn, 1 << 31)
            return down % (rows + 1), right % (columns + 1)

        return read(resize=round(self.image_size * MARGIN), crop=crop)


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _sample(files: ImageFiles, image_size: int, grey: bool, count: int) -> ImageSet:
    """Up to `count` evenly spaced files in memory."""
    rows = torch.linspace(0, len(files) - 1, min(count, len(files))).long()
    paths = [files.paths[row] for row in rows.tolist()]
    images = decode_all(paths, [str(path) for path in paths], files.name, grey=grey, size=image_size)
    return ImageSet(images, files.labels[rows], files.classes, name=files.name)
