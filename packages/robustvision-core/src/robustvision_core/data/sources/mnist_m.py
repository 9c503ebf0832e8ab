"""MNIST-M and its kin: grey images blended into colour backgrounds (Ganin and Lempitsky 2015)."""

from __future__ import annotations

import pathlib
from dataclasses import replace

from torch import Tensor

from robustvision_core.data.domains.blending import blend
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.offline.backgrounds import draw_backgrounds
from robustvision_core.data.reading.photos import Photos, read_photos
from robustvision_core.data.registry.image_sets import load
from robustvision_core.data.registry.query import Query
from robustvision_core.data.registry.table import TRAIN_TEST
from robustvision_core.data.transforms.convert import pad_to
from robustvision_core.errors import DataError

SIZES = (28, 32)


def load_mnist_m(query: Query, size: int = 28, seed: int = 0, binarise: bool = True, photos: str = "") -> ImageSet:
    """MNIST-M made from MNIST and photos, by `blend`: deterministic, which no published script is.

    Image `i` depends on (seed, split, i), MNIST and the photos alone. Ids and order are MNIST's.

    The photos are BSDS500's: `bsds500_train.zip` and `bsds500_test.zip`, or the official `BSR_bsds500.tgz` or the
    folder `BSDS500` in it, in `<root>/mnist-m`, `<root>/bsds500` or `<root>`. The test set takes test photos where
    there are any, else those for training, as the published set does.

    Args:
        query: Its `split` is `train` or `test`.
        size: 28, or 32 by a black border around the digit.
        seed: Of the crops.
        binarise: As in `blend`.
        photos: Another folder or archive of photos to take.

    Raises:
        DataError: MNIST or the photos are missing or broken; or the size is another.
    """
    return _on_photos(query, "mnist", size, seed, binarise, photos)


def load_fashion_mnist_m(
    query: Query, size: int = 28, seed: int = 0, binarise: bool = False, photos: str = ""
) -> ImageSet:
    """As `mnist-m`, of Fashion-MNIST; by default not binarised, as only its grey levels tell a shirt from a coat."""
    return _on_photos(query, "fashion-mnist", size, seed, binarise, photos)


def load_mnist_m_procedural(query: Query, size: int = 28, seed: int = 0, binarise: bool = True) -> ImageSet:
    """As `mnist-m`, with backgrounds that need no photos."""
    return _on_drawings(query, "mnist", size, seed, binarise)


def load_fashion_mnist_m_procedural(query: Query, size: int = 28, seed: int = 0, binarise: bool = False) -> ImageSet:
    """As `fashion-mnist-m`, with backgrounds that need no photos."""
    return _on_drawings(query, "fashion-mnist", size, seed, binarise)


def _on_photos(query: Query, base: str, size: int, seed: int, binarise: bool, photos: str) -> ImageSet:
    grey = _grey(query, base, size)
    crops = _photos(query, photos).crops(grey.ids, size, seed, TRAIN_TEST.index(query.split))
    return _blended(query, grey, crops, binarise)


def _on_drawings(query: Query, base: str, size: int, seed: int, binarise: bool) -> ImageSet:
    grey = _grey(query, base, size)
    drawn = draw_backgrounds(grey.ids, size, seed, TRAIN_TEST.index(query.split))
    return _blended(query, grey, drawn, binarise)


def _grey(query: Query, base: str, size: int) -> ImageSet:
    """The set to blend, with a black border up to the size."""
    if size not in SIZES:
        raise DataError(f"{query.name}: size is {size}, expected 28 or 32 pixels")
    return pad_to(load(base, query.split, query.root, query.download), size)


def _blended(query: Query, grey: ImageSet, backgrounds: Tensor, binarise: bool) -> ImageSet:
    return replace(grey, images=blend(grey.images, backgrounds, binarise=binarise), name=query.title)


def _photos(query: Query, given: str) -> Photos:
    if given:
        path = pathlib.Path(given).expanduser()
        if not path.exists():
            raise DataError(f"{query.name}: there is no folder or archive of photos {path}")
        return read_photos(path, query.split)
    files = (f"bsds500_{query.split}.zip", "BSDS500", "BSR_bsds500.tgz", "bsds500.zip", "bsds500_train.zip")
    for place in (query.root / "mnist-m", query.root / "bsds500", query.root):
        for file in files:
            if (place / file).exists():
                return read_photos(place / file, query.split)
    raise query.missing("bsds500_train.zip, BSR_bsds500.tgz or BSDS500/", query.root / "mnist-m")
