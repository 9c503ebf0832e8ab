"""Files and folders that a command writes."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from robustvision_core.errors import UserError


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
    """Turn what the file system refuses inside the block into one line that names `path`.

    Raises:
        UserError: Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def made(folder: str | pathlib.Path) -> pathlib.Path:
    """The folder, made if it is missing.

    Raises:
        UserError: It cannot be.
    """
    with writing(folder):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(folder)
