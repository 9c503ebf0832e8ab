"""Batches of images and poses that are a pure function of (seed, epoch, number)."""

from __future__ import annotations

from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from robustvision_core.data.batches.base import BatchOptions, MemoryBatches
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.poses.pose_set import PoseSet


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


class PoseBatches(MemoryBatches[PoseBatch]):
    """Batches of a pose set that lives on the device whole.

    Args:
        data: The set; it is moved to `device`.
        batch_size: Of the global batch, all processes together.
        options: `shuffle`, `seed`, `drop_last`, `rank`, `world_size`, `mean`, `std`, `augment` and `device`, with the
            meaning, attributes and errors that `IndexedBatches` states. `augment` must leave every pixel in its place
            (colours, noise, blur), for poses and keypoints are not changed with it.
    """

    def __init__(self, data: PoseSet, batch_size: int, **options: Unpack[BatchOptions]) -> None:
        self.data = data.to(options.get("device", "cpu"))
        self._keypoints_3d = self.data.keypoints_3d
        super().__init__(len(data), batch_size, self._pixels, **options)

    def _pixels(self, exact: bool) -> ImageSet:
        images = self.data.images
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return ImageSet(images, labels, ("",), name=self.data.name)

    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> PoseBatch:
        data, index = self.data, rows[part]
        shown = data.image_index[rows]
        return PoseBatch(
            self._prepared(lambda p: data.images.index_select(0, shown[p]), part, epoch, number),
            data.keypoints_2d[index],
            data.visible[index],
            self._keypoints_3d[index],
            data.R[index],
            data.t[index],
            data.K[index],
            index,
        )
