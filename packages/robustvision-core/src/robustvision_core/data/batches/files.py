"""Batches decoded from files as they are needed, for sets too large for memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustvision_core.data.batches.base import BatchOptions, IndexedBatches
from robustvision_core.data.batches.device import Batch
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.decode import decode, decode_all, usable_cores
from robustvision_core.data.reading.image_files import ImageFiles
from robustvision_core.errors import DataError
from robustvision_core.run.runtime import derive_seed

STATS_FILES = 512  # enough for three digits of a channel's mean
MARGIN = 8 / 7  # a random window of 224 pixels is cut from a shorter side of 256


class FileBatches(IndexedBatches[Batch]):
    """Batches of image files, read and decoded by worker processes.

    Random crops depend on (seed, epoch, sample) alone: a run that starts again within an epoch sees those of an
    uninterrupted one, for any number of workers. The processes of a distributed run together see one process's samples
    and crops, but draw `augment` apart, by their rank, for no process decodes the others' images.

    Args:
        files: What `robustvision_core.data.folder_files` gives.
        batch_size: Of the global batch, all processes together.
        image_size: Height and width of the images.
        random_crop: Resize the shorter side to 8/7 of `image_size` and cut a window anywhere, for training; else
            resize it to `image_size` and cut the middle.
        grey: One channel rather than RGB.
        workers: Processes that decode; None takes one a core, at most 8; 0 decodes in this process.
        options: `shuffle`, `seed`, `drop_last`, `rank`, `world_size`, `mean`, `std`, `augment` and `device`, with the
            meaning, attributes and errors that `IndexedBatches` states. Where `mean` or `std` is None it is estimated
            from up to 512 evenly spaced files.

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
        workers: int | None = None,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.files = files
        self.workers = min(8, usable_cores()) if workers is None else workers
        self._decoder = _Decoder(files, image_size, random_crop, grey, options.get("seed", 0))

        def pixels(exact: bool) -> ImageSet:
            return _sample(files, image_size, grey, STATS_FILES if exact else 1)

        super().__init__(len(files), batch_size, pixels, **options)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on."""
        order = self.order.samples(epoch)
        cuts = [self.order.cut(number) for number in range(start, len(self))]
        rows = [order[whole][part].tolist() for whole, part in cuts]
        device = self.mean.device
        for number, loaded in enumerate(self._loader(epoch, rows), start):
            if isinstance(loaded, str):
                raise DataError(loaded)
            images, index = (tensor.to(device, non_blocking=True) for tensor in loaded)
            labels = self.files.labels[loaded[1]].to(device, non_blocking=True)
            seen = self._prepared(images.__getitem__, slice(None), epoch, number, self.order.rank)
            yield Batch(seen, labels, index)

    def _loader(self, epoch: int, rows: list[list[int]]) -> DataLoader[Any]:
        return DataLoader(
            self._decoder,
            batch_sampler=[[(epoch, row) for row in batch] for batch in rows],
            num_workers=min(self.workers, len(rows)),
            collate_fn=_as_it_is,
            pin_memory=self.mean.is_cuda,
            generator=torch.Generator(),  # else it would draw from the global one
        )


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
        path, name = self.files.paths[row], self.files.name_of(row)
        read = partial(decode, path, name, grey=self.grey, size=self.image_size)
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
    names = [files.name_of(row) for row in rows.tolist()]
    images = decode_all(paths, names, files.name, grey=grey, size=image_size)
    return ImageSet(images, files.labels[rows], files.classes, name=files.name)
