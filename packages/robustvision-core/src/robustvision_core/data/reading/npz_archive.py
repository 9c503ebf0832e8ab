"""Reading `.npz` files without unpickling."""

from __future__ import annotations

import contextlib
import math
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from robustvision_core.data.reading.limits import check_unpacked
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
        """The array of a key.

        Raises:
            DataError: It is broken, larger than its header says or than the file may unpack to.
        """
        try:
            self._check_size(key)
            return self.opened[key]
        except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.path}: {key} cannot be read: {error}") from error

    def _check_size(self, key: str) -> None:
        """Compare what the header promises with what is there, before memory is taken for it."""
        archive: Any = self.opened.zip
        name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
        held = archive.getinfo(name).file_size
        check_unpacked(self.path, held)
        with archive.open(name) as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                return  # of version 3, whose names are not ASCII: NumPy reads it
            shape, _, kind = readers[version](file)
        promised = math.prod(shape) * kind.itemsize
        if promised > held:
            raise ValueError(f"its header promises {promised:,} bytes, the file holds {held:,}")
