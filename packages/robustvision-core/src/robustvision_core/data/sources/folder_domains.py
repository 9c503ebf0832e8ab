"""Domain pairs from folders: Office-31, Modern Office-31, Office-Home, PACS, VisDA, and your own."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.image_files import ImageFiles, class_files, is_image, subfolders
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
    VisDA-2017 (`train/<class>/` and `validation/<class>/`) all work as `folder:PATH:SOURCE:TARGET`; domains that lie
    apart are written `folder:SOURCE:TARGET`, each with its own path. Classes are matched by name; the target may lack
    some. Ids are places in the sorted list of the domain's files. A domain gives the same parts in every pair with one
    seed.

    A target without class folders, its images flat in `TARGET` or `TARGET/images`, has no labels: all of it is
    training data, and there is nothing of it to validate or test on.

    Args:
        query: Its `path` is `PATH:SOURCE:TARGET` or `SOURCE:TARGET`, relative to the working directory.
        image_size: The shorter side is resized to this and the middle square of this side kept.
        sizes: Of the training, validation and test part of each domain: shares or counts, as in `split`.
        seed: Chooses the parts.
        max_gib: Largest size of one domain in memory, in GiB; a larger one is decoded into a file.

    Raises:
        UserError: The name is not written so, or there are not three sizes.
        DataError: A folder is missing or empty, a file is no image, the target has classes that the source has not, or
            a domain is cut into `train` and `test` already.
    """
    source, target = domain_folders(query)
    if len(sizes) != 3:
        raise UserError(f"sizes are {tuple(sizes)}, expected three: of the {', '.join(PARTS)} part")
    known = decode_domain(source, image_size, max_gib)
    parts, name = split(known, sizes, seed=seed), f"{source.name}-{target.name}"
    files = unlabelled_files(target, known.classes)
    if files is not None:
        pool = decode_files(files, image_size, grey=False, max_gib=max_gib)
        nothing = pool.take([])
        made: list[ImageSet] = [*parts, pool, nothing, nothing]
        return DomainPair(*made, name=name, target_labelled=False, target_files=tuple(files.paths))
    listed = domain_files(target)
    theirs = _among(decode_files(listed, image_size, grey=False, max_gib=max_gib), known.classes)
    made = [*parts, *split(theirs, sizes, seed=seed)]
    return DomainPair(*made, name=name, target_files=tuple(listed.paths))


def domain_folders(query: Query) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders of source and target of `PATH:SOURCE:TARGET` or `SOURCE:TARGET`; each is looked for as `place` is."""
    parts = query.path.rsplit(":", 2)
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"domain pair 'folder:{query.path}' is written folder:PATH:SOURCE:TARGET, or folder:SOURCE:TARGET"
        )
    paths = parts if len(parts) == 2 else [str(pathlib.Path(parts[0]) / name) for name in parts[1:]]
    source, target = (pathlib.Path(replace(query, path=path).place) for path in paths)
    return source, target


def domain_files(folder: pathlib.Path) -> ImageFiles:
    """The image files of one domain, from `folder/<class>/` or `folder/images/<class>/`."""
    if not folder.is_dir():
        raise DataError(f"there is no domain folder {folder}: expected {folder}/<class>/<image>")
    inner = folder / "images"
    place = inner if subfolders(folder) == ["images"] and subfolders(inner) else folder
    names = subfolders(place)
    if names and set(names) <= {*PARTS, "validation"} and all(subfolders(place / name) for name in names):
        raise DataError(
            f"{place} has folders {', '.join(names)} of classes, and domains are cut here: give one of them as the "
            f"domain, as {place / names[-1]}"
        )
    return class_files(place, names)


def decode_domain(folder: pathlib.Path, image_size: int, max_gib: float | None) -> ImageSet:
    """All images of one domain."""
    return decode_files(domain_files(folder), image_size, grey=False, max_gib=max_gib)


def unlabelled_files(folder: pathlib.Path, classes: tuple[str, ...]) -> ImageFiles | None:
    """The image files that lie flat in `folder` or `folder/images`, sorted; None where it has class folders."""
    if not folder.is_dir() or subfolders(folder) not in ([], ["images"]):
        return None
    place = folder / "images" if subfolders(folder) else folder
    if subfolders(place):
        return None
    paths = tuple(sorted(file for file in place.iterdir() if is_image(file) and file.is_file()))
    if not paths:
        raise DataError(f"{place} holds no images: expected {place}/<image>, or {place}/<class>/<image>")
    return ImageFiles(paths, torch.zeros(len(paths), dtype=torch.long), classes, str(folder))


def _among(data: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """`data`, which may lack some of `classes`, numbered as they are; as it is where it has others."""
    if not set(data.classes) <= set(classes):
        return data
    place = torch.tensor([classes.index(name) for name in data.classes])
    return replace(data, labels=place[data.labels], classes=classes)
