"""A data set without its suspected labels, as a file that `train` takes."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from robustvision_core.data import ImageSet, list_files
from robustvision_core.errors import DataError, MissingSplitError, UserError
from robustvision_core.run.files import atomic_write, write_csv
from torch import Tensor

from fdiv_noisy.cli.data import clean_images
from fdiv_noisy.cli.options import IssuesConfig
from fdiv_noisy.estimation.issues import LabelIssues
from fdiv_noisy.noise import save_labels

FORMATS = (".csv", ".npz", ".pt")


def check_formats(config: IssuesConfig) -> None:
    """Raise UserError where --relabel, --drop or --threshold cannot be followed, before anything is trained."""
    if not 0 < config.threshold < 1:
        raise UserError(f"--threshold is a probability between 0 and 1, got {config.threshold}")
    for option, path in (("--relabel", config.relabel), ("--drop", config.drop)):
        suffix = pathlib.Path(path).suffix
        if path and suffix not in FORMATS:
            raise UserError(f"{option} {path}: expected a file {', '.join(FORMATS)}")
        if suffix == ".csv" and not config.data.startswith(("folder:", "csv:")):
            raise UserError(
                f"{option} {path}: a table names image files, and {config.data} has none of its own: write .npz"
            )
        if suffix == ".pt" and option == "--drop":
            raise UserError(f"--drop {path}: a file of labels has one for every sample: write .npz, or use --relabel")


def write_cleaned(config: IssuesConfig, found: LabelIssues, samples: ImageSet, names: list[str]) -> list[str]:
    """Write what --relabel and --drop ask for.

    Returns:
        A sentence for each file: what is in it, and how to train on it.
    """
    suspects = found.suspects(config.threshold)
    everything = torch.arange(len(samples))
    said = []
    if config.relabel:
        labels = torch.where(suspects, found.suggested, samples.labels)
        changed = int((labels != samples.labels).sum())
        how = _write(config, config.relabel, samples.with_labels(labels), everything, names)
        said.append(f"{config.relabel}: {changed} of {len(samples)} labels replaced; {how}")
    if config.drop:
        kept = everything[~suspects]
        how = _write(config, config.drop, samples, kept, names)
        said.append(f"{config.drop}: {len(samples) - len(kept)} of {len(samples)} samples left out; {how}")
    return said


def _write(config: IssuesConfig, path: str, samples: ImageSet, rows: Tensor, names: list[str]) -> str:
    """Write the samples `rows`, and say how to train on them."""
    target = pathlib.Path(path)
    writers: dict[str, Callable[[], str]] = {
        ".csv": lambda: _write_table(config, target, samples, rows, names),
        ".npz": lambda: _write_arrays(config, target, samples.take(rows)),
        ".pt": lambda: _write_labels(config, target, samples.labels),
    }
    return writers[target.suffix]()


def _write_table(config: IssuesConfig, path: pathlib.Path, samples: ImageSet, rows: Tensor, names: list[str]) -> str:
    listed = [(names[row], samples.classes[int(samples.labels[row])], "train") for row in rows.tolist()]
    listed += _other_parts(config)
    named = [(_beside(path, file), label, part) for file, label, part in listed]
    write_csv(path, [("file", "label", "split"), *named])
    return f"train on it with --data csv:{path} --noise none"


def _other_parts(config: IssuesConfig) -> Iterator[tuple[str, str, str]]:
    """File, label and split of the images that are not for training."""
    for part in ("val", "test"):
        try:
            files = list_files(config.data, part, config.data_root or None)
        except MissingSplitError:
            continue
        labels = (files.classes[label] for label in files.labels.tolist())
        yield from ((str(file), label, part) for file, label in zip(files.paths, labels, strict=True))


def _beside(table: pathlib.Path, file: str) -> str:
    """A file as seen from the folder of the table that names it."""
    return file if os.path.isabs(file) else os.path.relpath(file, table.parent)


def _write_arrays(config: IssuesConfig, path: pathlib.Path, samples: ImageSet) -> str:
    arrays = {"x_train": samples.images, "y_train": samples.labels}
    try:
        test = clean_images(config.train_config(), "test")
        arrays |= {"x_test": test.images, "y_test": test.labels}
        how = f"train on it with --data npz:{path} --noise none"
    except DataError:
        how = "it has no test images, which train asks for"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        plain: dict[str, Any] = {key: value.cpu().numpy() for key, value in arrays.items()}
        np.savez(file, classes=np.array(samples.classes), **plain)
    return how


def _write_labels(config: IssuesConfig, path: pathlib.Path, labels: Tensor) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_labels(path, labels)
    return f"train on it with --data {config.data} --noise file:{path}"
