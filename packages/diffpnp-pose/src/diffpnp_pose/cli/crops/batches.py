"""Training batches of crops: warped, before other backgrounds, half hidden, otherwise lit, each time anew."""

from __future__ import annotations

from typing import Unpack

import torch
from robustvision_core.data import ImageSet, PoseBatch, PoseBatches
from robustvision_core.data.batches.base import BatchOptions
from robustvision_core.data.batches.statistics import normalise
from robustvision_core.run.runtime import derive_seed
from torch import Tensor

from diffpnp_pose.cli.crops.crop_set import CropSet
from diffpnp_pose.cli.crops.scene import in_scene
from diffpnp_pose.cli.crops.warp import Camera, follow, mapped, similarities, staying, warp
from diffpnp_pose.cli.recipes import CropOptions


class CropBatches(PoseBatches):
    """Batches of crops under random warps and scenes, a pure function of (seed, epoch, number).

    Args:
        crops: With coverage as fourth channel.
        bank: (M, 3, H, W) uint8 backgrounds.
        crop: How far crops are turned, scaled, shifted and covered.
        batch_size: As of `PoseBatches`.
        options: As of `PoseBatches`, with `mean` and `std`, without `augment`.
    """

    def __init__(
        self, crops: CropSet, bank: Tensor, crop: CropOptions, batch_size: int, **options: Unpack[BatchOptions]
    ) -> None:
        self._to = torch.device(options.pop("device", "cpu"))
        self._bank, self._crop = bank, crop
        self._draw = torch.Generator()
        super().__init__(crops, batch_size, **options)

    def _pixels(self, exact: bool) -> ImageSet:
        return ImageSet(self.data.images[:1, :3], torch.zeros(1, dtype=torch.int64), ("",), name=self.data.name)

    def _batch(self, rows: Tensor, part: slice, epoch: int, number: int) -> PoseBatch:
        data, crop, draw = self.data, self._crop, self._draw
        draw.manual_seed(derive_seed(self.order.seed, "crops", epoch, number))
        height, width = data.images.shape[-2:]
        maps = similarities(len(rows), (width, height), crop.turn, crop.zoom, crop.shift, draw)
        maps = staying(maps, data.keypoints_2d[rows], (width, height))
        images = warp(data.images[data.image_index[rows]].float().div_(255), maps)
        scenes = in_scene(images, self._bank, crop, draw)[part]
        index, maps = rows[part], maps[part]
        camera = follow(Camera(data.K[index], data.R[index], data.t[index]), maps)
        batch = PoseBatch(
            normalise(scenes, self.mean, self.std, scale=1),
            mapped(data.keypoints_2d[index], maps),
            data.visible[index],
            self._keypoints_3d[index],
            camera.R,
            camera.t,
            camera.K,
            index,
        )
        return PoseBatch(*(value.to(self._to) for value in batch))
