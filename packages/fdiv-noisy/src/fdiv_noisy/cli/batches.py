"""Training batches, and the further ones that algorithm 1 of Wei and Liu 2021 takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from robustvision_core.data import Batch, DeviceBatches, FileBatches, ImageFiles, affine_augment
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor

from fdiv_noisy.cli.data import Images
from fdiv_noisy.cli.recipes import TrainConfig

TrainBatches = DeviceBatches | FileBatches


class PeerBatch(NamedTuple):
    """A batch and the two that algorithm 1 takes beside it.

    Attributes:
        batch: Images with their labels.
        peer_images: (B, C, H, W) images of a second batch.
        peer_labels: (B,) labels of a third.
    """

    batch: Batch
    peer_images: Tensor
    peer_labels: Tensor


class PeerBatches:
    """Each batch with the images and labels of two others, drawn in orders of their own."""

    def __init__(self, batches: TrainBatches, images: TrainBatches, labels: TrainBatches) -> None:
        self.parts = (batches, images, labels)

    def __len__(self) -> int:
        return len(self.parts[0])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PeerBatch]:
        """The batches of one epoch from number `start` on."""
        for batch, images, labels in zip(*(part.epoch(epoch, start) for part in self.parts), strict=True):
            yield PeerBatch(batch, images.images, labels.labels)


def make_batches(
    config: TrainConfig,
    data: Images,
    runtime: Runtime,
    *,
    peers: bool = False,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> TrainBatches | PeerBatches:
    """Shuffled training batches, with `peers` those of algorithm 1 beside them.

    They are normalised by `mean` and `std` (C,), by default those of the data.
    """
    options: dict[str, Any] = {
        "shuffle": True,
        "rank": runtime.rank,
        "world_size": runtime.world_size,
        "augment": affine_augment() if config.augment else None,
        "device": runtime.device,
        "mean": mean,
        "std": std,
    }

    def make(name: str) -> TrainBatches:
        seed = derive_seed(config.seed, name)
        if isinstance(data, ImageFiles):
            more = {"image_size": config.image_size, "random_crop": True}
            return FileBatches(data, config.batch_size, seed=seed, **more, **options)
        return DeviceBatches(data, config.batch_size, seed=seed, **options)

    if not peers:
        return make("order")
    return PeerBatches(make("order"), make("peer images"), make("peer labels"))
