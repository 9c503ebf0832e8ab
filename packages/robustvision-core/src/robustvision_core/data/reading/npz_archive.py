"""Reading `.npz` files without unpickling."""

from __future__ import annotations

import contextlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from robustvision_core.errors import DataError

EXPECTED = "expected images (or x_train, x_test) and labels (or y_train, y_test)"


class NpzArchive:
    """An open `.npz` whose failures name the file."""

    def __init__(self, path: pathlib.Path) -> None:
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        self.path = path
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))  # opened here: np.load leaves a broken file open
                opened = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise DataError(f"{path} is truncated or no .npz file: {error}") from error
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one bare array: {EXPECTED}")
            self.opened = stack.enter_context(opened)
            self.close = stack.pop_all().close

    def __enter__(self) -> NpzArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self.opened.files)

    def find(self, stems: Iterable[str], split: str) -> str:
        """The key of a split: `x_train` or `train_x`; for train also plain `x` in a file without splits."""
        wanted = [key for stem in stems for key in (f"{stem}_{split}", f"{split}_{stem}")]
        if split == "train":
            wanted += list(stems)
        for key in wanted:
            if key in self.keys:
                return key
        raise DataError(f"{self.path} has no {wanted[0]}: found {', '.join(self.keys) or 'nothing'}; {EXPECTED}")

    def array(self, key: str) -> np.ndarray[Any, Any]:
        """The array of a key."""
        try:
            return self.opened[key]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.path}: {key} cannot be read: {error}") from error
