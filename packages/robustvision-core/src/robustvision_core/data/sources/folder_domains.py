"""Domain pairs from folders: Office-31, Modern Office-31, Office-Home, PACS, VisDA, and your own."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace

from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.image_files import class_files, subfolders
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.splits import split
from robustvision_core.data.sources.folder import decode_files
from robustvision_core.errors import DataError, UserError

PARTS = ("train", "val", "test")


def load_folder_domains(
    query: Query,
    image_size: int = 64,
    sizes: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    max_gib: float | None = None,
) -> DomainPair:
    """The domains `PATH/SOURCE` and `PATH/TARGET`, each cut by class into training, validation and test.

    The layouts of Office-31 (`amazon/images/<class>/`), Modern Office-31, Office-Home, PACS (`photo/<class>/`) and
    VisDA-2017 (`train/<class>/` and `validation/<class>/`) all work as `folder:PATH:SOURCE:TARGET`. Classes are
    matched by name. Ids are places in the sorted list of the domain's files. A domain gives the same parts in every
    pair with one seed.

    Args:
        query: Its `path` is `PATH:SOURCE:TARGET`, relative to the working directory.
        image_size: The shorter side is resized to this and the middle square of this side kept.
        sizes: Of the training, validation and test part of each domain: shares or counts, as in `split`.
        seed: Chooses the parts.
        max_gib: Largest size of one domain in memory, in GiB; a larger one is decoded into a file.

    Raises:
        UserError: The name is not written so, or there are not three sizes.
        DataError: A folder is missing or empty, a file is no image, or the classes of the domains differ.
    """
    top, *domains = query.path.rsplit(":", 2)
    if len(domains) != 2 or not all((top, *domains)):
        raise UserError(f"domain pair 'folder:{query.path}' is written folder:PATH:SOURCE:TARGET")
    if len(sizes) != 3:
        raise UserError(f"sizes are {tuple(sizes)}, expected three: of the {', '.join(PARTS)} part")
    parts: list[ImageSet] = []
    for domain in domains:
        data = decode_domain(pathlib.Path(replace(query, path=top).place) / domain, image_size, max_gib)
        parts += split(data, sizes, seed=seed)
    return DomainPair(*parts, name=f"{domains[0]}-{domains[1]}")


def decode_domain(folder: pathlib.Path, image_size: int, max_gib: float | None) -> ImageSet:
    """All images of one domain, from `folder/<class>/` or `folder/images/<class>/`."""
    if not folder.is_dir():
        raise DataError(f"there is no domain folder {folder}: expected {folder}/<class>/<image>")
    inner = folder / "images"
    place = inner if subfolders(folder) == ["images"] and subfolders(inner) else folder
    return decode_files(class_files(place, subfolders(place)), image_size, grey=False, max_gib=max_gib)
