"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.splits import rank_in_class
from robustvision_core.errors import DataError

TEST_EVERY = 5


def load_digits(query: Query, size: int = 8) -> ImageSet:
    """The digits of scikit-learn's `load_digits` (test part of the UCI optical digits, Alpaydin and Kaynak 1998).

    The source has no split. Of each class every fifth sample in the source's order is for the test (355 in all), the
    others for training (1,442); `ids` are positions in the source.

    Args:
        query: Its `split` is `train` or `test`.
        size: Height and width; other than 8 the images are resized bilinearly, without antialiasing.
    """
    if not 1 <= size <= 512:
        raise DataError(f"digits: size is {size}, expected 1 to 512 pixels")
    from sklearn import datasets

    source: Any = datasets.load_digits()
    levels = torch.from_numpy(source["images"])[:, None]  # (1797, 1, 8, 8) float64, 0..16
    labels = torch.from_numpy(source["target"]).long()
    is_test = rank_in_class(labels, 10) % TEST_EVERY == TEST_EVERY - 1
    data = ImageSet(_grey(levels, size), labels, tuple("0123456789"), name=query.title)
    return data.take(is_test if query.split == "test" else ~is_test)


def _grey(levels: Tensor, size: int) -> Tensor:
    images = levels * (255 / 16)
    if size != 8:
        images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return images.round().to(torch.uint8)
