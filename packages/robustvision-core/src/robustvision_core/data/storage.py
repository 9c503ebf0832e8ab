"""Pixels that do not fit in memory: a tensor whose bytes are in a file, which the system reads as they are needed."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pathlib
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from robustvision_core.errors import DataError, UserError

SCRATCH_VARIABLE = "ROBUSTVISION_SCRATCH"
LIMIT_VARIABLE = "ROBUSTVISION_MAX_GIB"
MAX_GIB = 4.0
SMALL = 2**28  # bytes: parts of a mapped set that are smaller are held in memory
CHUNK = 2**24  # bytes copied at once


def max_gib(asked: float | None = None) -> float:
    """How many GiB of pixels a set may hold in memory: `asked`, else the variable `ROBUSTVISION_MAX_GIB`, else 4."""
    if asked is not None:
        return asked
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        return float(text or MAX_GIB)
    except ValueError:
        raise UserError(f"{LIMIT_VARIABLE} is {text!r}: expected a number of GiB, as 16") from None


def scratch() -> pathlib.Path:
    """Where such files go: the variable `ROBUSTVISION_SCRATCH`, else `/var/tmp`, else the system's temporary folder."""
    given = os.environ.get(SCRATCH_VARIABLE)
    usual = pathlib.Path("/var/tmp")  # on a disk, where /tmp is often in memory
    if given:
        return pathlib.Path(given).expanduser()
    return usual if os.access(usual, os.W_OK) else pathlib.Path(tempfile.gettempdir())


def is_mapped(images: Tensor) -> bool:
    """Whether a tensor's bytes are in a file."""
    return images.device.type == "cpu" and images.untyped_storage().filename is not None


def mapped_empty(shape: Sequence[int]) -> Tensor:
    """A uint8 tensor in a file without a name, which is gone with the tensor.

    Raises:
        DataError: The folder of `scratch` has not the space, or cannot be written.
    """
    size, folder = math.prod(shape), scratch()
    try:
        handle, name = tempfile.mkstemp(prefix="robustvision-", suffix=".pixels", dir=folder)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}: set {SCRATCH_VARIABLE} to a folder") from error
    try:
        _reserve(handle, size, folder)
        return torch.from_file(name, shared=True, size=size, dtype=torch.uint8).view(*shape)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # Windows deletes no file that is in use
            os.unlink(name)


def take_rows(images: Tensor, rows: Tensor) -> Tensor:
    """`images[rows]`; where `images` is mapped and the part is large, it is mapped too."""
    shape, each = (len(rows), *images.shape[1:]), math.prod(images.shape[1:])
    if not is_mapped(images) or math.prod(shape) < SMALL:
        return images.index_select(0, rows)  # many times faster than indexing on the CPU
    taken = mapped_empty(shape)
    for places in torch.arange(len(rows)).split(max(1, CHUNK // max(each, 1))):
        taken[int(places[0]) : int(places[-1]) + 1] = images.index_select(0, rows[places])
    return taken


def empty_like_rows(images: Tensor, shape: Sequence[int]) -> Tensor:
    """An empty uint8 tensor for what is made of `images`: mapped where they are and it is large."""
    if is_mapped(images) and math.prod(shape) >= SMALL:
        return mapped_empty(shape)
    return images.new_empty(tuple(shape))


def _reserve(handle: int, size: int, folder: pathlib.Path) -> None:
    """Give a file its blocks now: one without would end the process where the disk is full."""
    try:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise DataError(
            f"{folder} has no room for {size / 2**30:.1f} GiB of pixels: set {SCRATCH_VARIABLE} to a folder that has, "
            "or ask for smaller images"
        ) from error
