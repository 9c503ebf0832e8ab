"""Batches of a set that is on the device whole."""

from __future__ import annotations

from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from robustvision_core.data.batches.base import BatchOptions, MemoryBatches
from robustvision_core.data.image_set import ImageSet


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


class DeviceBatches(MemoryBatches[Batch]):
    """Batches of a set that lives on the device whole, as uint8, and is batched there by index.

    A set whose pixels are in a file stays there, and its batches go to the device one by one.

    Each process augments as one process would have: together they see exactly what one process sees.

    Args:
        data: The set; it is moved to `device`.
        batch_size: Of the global batch, all processes together.
        options: `shuffle`, `seed`, `drop_last`, `rank`, `world_size`, `mean`, `std`, `augment` and `device`, with the
            meaning, attributes and errors that `IndexedBatches` states.
    """

    def __init__(self, data: ImageSet, batch_size: int, **options: Unpack[BatchOptions]) -> None:
        self.device = torch.device(options.get("device", "cpu"))
        self.data = data if data.is_mapped else data.to(self.device)
        super().__init__(len(data), batch_size, lambda _: self.data, **options)

    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> Batch:
        here = rows.to(self.data.device)
        pixels = self.data.images
        images = self._prepared(lambda p: pixels.index_select(0, here[p]).to(self.device), part, epoch, number)
        return Batch(images, self.data.labels[here[part]].to(self.device), rows[part])
