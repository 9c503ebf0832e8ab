"""How much a packed file may unpack to: a file of a few kilobytes must not fill the memory."""

from __future__ import annotations

import bz2
import gzip
import os
import pathlib
import zlib

from robustvision_core.errors import DataError, UserError

RATIO_VARIABLE = "ROBUSTVISION_UNPACK_RATIO"
RATIO = 100.0  # of the size unpacked to that of the file; MNIST's is 5, the annotations of BOP sets' 10
ALWAYS = 64 * 2**20  # bytes that any file may unpack to

_OPENERS = {".gz": ("gzip", gzip.open), ".bz2": ("bzip2", bz2.open)}


def most_unpacked(path: pathlib.Path) -> int:
    """Bytes that a packed file may unpack to: 100 times its size, and 64 MiB in any case.

    The variable `ROBUSTVISION_UNPACK_RATIO` sets another ratio.
    """
    text = os.environ.get(RATIO_VARIABLE, "")
    try:
        ratio = float(text or RATIO)
        return max(ALWAYS, int(path.stat().st_size * ratio))
    except (ValueError, OverflowError):
        raise UserError(f"{RATIO_VARIABLE} is {text!r}: expected a number, as 1000") from None


def check_unpacked(path: pathlib.Path, size: int, limit: int | None = None) -> None:
    """Raise DataError where `size` bytes are more than `path` may unpack to, or than `limit`."""
    most = most_unpacked(path) if limit is None else limit
    if size > most:
        raise DataError(
            f"{path} is refused: it has {path.stat().st_size:,} bytes and unpacks to {size:,} or more, {most:,} are "
            f"allowed: if it is right, set {RATIO_VARIABLE} to the ratio of the two"
        )


def unpacked(path: pathlib.Path) -> bytes:
    """The content of a file, unpacked where its name ends in `.gz` or `.bz2`.

    Raises:
        DataError: It cannot be read, is truncated or not packed so, or unpacks to more than `most_unpacked`.
    """
    kind, opener = _OPENERS.get(path.suffix, ("", None))
    try:
        if opener is None:
            return path.read_bytes()
        most = most_unpacked(path)
        with opener(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        raise DataError(f"{path} is truncated or not a {kind} file: {error}") from error
    except (EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a {kind} file: {error}") from error
    check_unpacked(path, len(content), most)
    return content
