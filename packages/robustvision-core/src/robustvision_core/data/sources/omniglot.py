"""Handwritten characters of 50 alphabets, for few-shot learning."""

from __future__ import annotations

import pathlib

import torch

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.reading.decode import decode_all
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.download import fetch
from robustvision_core.errors import DataError

FOLDERS = {"train": "images_background", "test": "images_evaluation"}


def load_omniglot(query: Query, size: int = 28) -> ImageSet:
    """Omniglot from its zip archives or unpacked: the background set for training, the evaluation set for the test.

    The splits share no alphabet. Classes are named `Alphabet/character01`. White on black, as MNIST: the files are
    black on white.

    Args:
        query: Its `split` is `train` (30 alphabets) or `test` (20 alphabets).
        size: Height and width that the 105x105 images are resized to, bilinearly with antialiasing.
    """
    if not 1 <= size <= 512:
        raise DataError(f"omniglot: size is {size}, expected 1 to 512 pixels")
    files, holder = _files(query)
    paths = sorted(files)
    names = ["/".join(path.split("/")[-3:-1]) for path in paths]
    classes = sorted(set(names))
    number = {name: label for label, name in enumerate(classes)}
    images = decode_all(
        [files[path] for path in paths], [f"{holder}: {path}" for path in paths], holder, grey=True, size=size
    )
    return ImageSet(255 - images, torch.tensor([number[name] for name in names]), tuple(classes), name=query.title)


def _files(query: Query) -> tuple[dict[str, pathlib.Path | bytes], str]:
    """Every image by its path `.../alphabet/character/file.png`, and what holds them."""
    folder = FOLDERS[query.split]
    own = query.root / query.name
    for _ in range(2):
        for place in (own / "omniglot-py", query.root / "omniglot-py", own):
            found: dict[str, pathlib.Path | bytes] = {}
            if (place / folder).is_dir():
                found |= {path.as_posix(): path for path in (place / folder).glob("*/*/*.png")}
                return found, str(place / folder)
            if (place / f"{folder}.zip").is_file():
                found |= read_members(place / f"{folder}.zip", lambda name: name.endswith(".png") and "/" in name)
                return found, str(place / f"{folder}.zip")
        if not query.download:
            break
        fetch(query, "Omniglot", background=query.split == "train")
    raise query.missing(f"{folder}.zip or {folder}/", own / "omniglot-py", can_download=True)
