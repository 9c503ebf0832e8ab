"""Zip and tar archives, read without unpacking."""

from __future__ import annotations

import contextlib
import lzma
import os
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from robustvision_core.errors import DataError

StrPath = str | os.PathLike[str]

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)


def read_members(archive: StrPath, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of an archive whose name `wanted` accepts, read into memory in one pass.

    Links and devices in a tar are left out.

    Args:
        archive: A `.zip`, or a tar, compressed or not.
        wanted: Called with the name of every file.

    Raises:
        DataError: A member's name leads outside the archive's folder, or the archive is missing or broken.
    """
    with _opened(pathlib.Path(archive)) as opened:
        if isinstance(opened, zipfile.ZipFile):
            return {i.filename: opened.read(i) for i in opened.infolist() if not i.is_dir() and wanted(i.filename)}
        chosen = [member for member in opened.getmembers() if member.isreg() and wanted(member.name)]
        return {member.name: _open_member(opened, member).read() for member in chosen}


@contextlib.contextmanager
def _opened(archive: pathlib.Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """An archive whose members have been checked; what fails within becomes a DataError that names it."""
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    _check_name(archive, info.filename)
                yield opened
        else:
            with tarfile.open(archive) as opened:
                for member in opened.getmembers():
                    _check_name(archive, member.name)
                yield opened
    except _BROKEN as error:
        raise DataError(f"{archive} is truncated or no archive, or cannot be unpacked: {error}") from error


def _check_name(archive: pathlib.Path, name: str) -> None:
    parts = re.split(r"[/\\]", name)  # a backslash separates on Windows
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{archive} is refused: its member {name!r} would land outside the folder")


def _open_member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(member)
    if file is None:
        raise tarfile.ExtractError(f"{member.name} is no file")
    return file
