"""Batches of images and poses that are a pure function of (seed, epoch, number)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from robustvision_core.data.batches.device import Augment, BatchOrder, Statistic, normalise, resolve_stats
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.poses.pose_set import PoseSet
from robustvision_core.run.runtime import derive_seed


class PoseBatch(NamedTuple):
    """What a training step gets; conventions as in `robustvision_core.data.poses.pose_set`.

    Attributes:
        images: (B, C, H, W) float32, normalised.
        keypoints_2d: (B, P, 2) float32, pixels of `images`.
        visible: (B, P) bool.
        keypoints_3d: (B, P, 3) float32, metres.
        R: (B, 3, 3) float32, object to camera.
        t: (B, 3) float32, metres.
        K: (B, 3, 3) float32, pixels.
        index: (B,) int64, position of each item in the set; its object is `data.object_id[index]`.
    """

    images: Tensor
    keypoints_2d: Tensor
    visible: Tensor
    keypoints_3d: Tensor
    R: Tensor
    t: Tensor
    K: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.index, of no use here


class PoseBatches:
    """Batches of a pose set that lives on the device whole; otherwise as `DeviceBatches`.

    Args:
        data: The set; it is moved to `device`.
        batch_size: Of the global batch, all processes together.
        shuffle: A new random order every epoch; else the order of the set.
        seed: Of the order and the augmentation.
        drop_last: Leave out the last batch where it is smaller.
        rank: Number of this process.
        world_size: Number of processes.
        mean: Of each channel, (C,) or one number, on the scale 0..1; None computes it from the images of `data`.
        std: As `mean`.
        augment: Applied to images scaled to 0..1, before they are normalised. It must leave every pixel in its place
            (colours, noise, blur), for poses and keypoints are not changed with it.
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
        data: PoseSet,
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
        images = self.data.images
        plain = ImageSet(
            images, torch.zeros(len(images), dtype=torch.int64, device=images.device), ("",), name=data.name
        )
        self.mean, self.std = resolve_stats(plain, mean, std)
        self._keypoints_3d = self.data.keypoints_3d
        self._generator = torch.Generator(self.data.device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PoseBatch]:
        """The batches of one epoch from number `start` on."""
        order = self.order.samples(epoch).to(self.data.device)
        for number in range(start, len(self)):
            whole, part = self.order.cut(number)
            yield self._batch(order[whole], part, epoch, number)

    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> PoseBatch:
        data, index = self.data, rows[part]
        return PoseBatch(
            self._images(rows, part, epoch, number),
            data.keypoints_2d[index],
            data.visible[index],
            self._keypoints_3d[index],
            data.R[index],
            data.t[index],
            data.K[index],
            index,
        )

    def _images(self, rows: Tensor, part: slice, epoch: int, number: int) -> Tensor:
        shown = self.data.image_index[rows]
        if self.augment is None:
            return normalise(self.data.images.index_select(0, shown[part]), self.mean, self.std)
        # the global batch in every process, so that together they see what one process would
        self._generator.manual_seed(derive_seed(self.order.seed, "augment", epoch, number))
        images = self.augment(self.data.images.index_select(0, shown).float().div_(255), self._generator)[part]
        return normalise(images, self.mean, self.std, scale=1)
