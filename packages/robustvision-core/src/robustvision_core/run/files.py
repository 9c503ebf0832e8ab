"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path beside `path` to write to; it replaces `path` when the block ends without an error.

    A process killed at any moment leaves either the old file or the new one, never half of one. The parent folder is
    made if it is missing, and the temporary file is removed on an error.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        with naming(path, temporary):
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())  # the data must be on disk before the name points to it
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], *others: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the operating system in the block name `path` where they name no file, or one of `others`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename) in map(str, others)):
            error.filename, error.filename2 = str(path), None
        raise


def check_space(folder: str | os.PathLike[str], size: int) -> None:
    """Raise OSError where a file of `size` bytes cannot be written into `folder`, which exists."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: a checkpoint needs {size:,} bytes", str(folder))
    if resource is None:
        return
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if largest not in (resource.RLIM_INFINITY, -1) and largest < size:
        cause = f"{os.strerror(errno.EFBIG)}: a checkpoint needs {size:,} bytes, a file may have {largest:,}"
        raise OSError(errno.EFBIG, cause, str(folder))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows, the header first, as a CSV file, atomically."""
    # surrogateescape: a file name need not be UTF-8
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as table,
    ):
        csv.writer(table).writerows(rows)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
