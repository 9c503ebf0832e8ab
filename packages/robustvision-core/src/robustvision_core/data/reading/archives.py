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

from robustvision_core.data.reading.limits import check_unpacked, most_unpacked
from robustvision_core.errors import DataError

StrPath = str | os.PathLike[str]

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)


def read_members(archive: StrPath, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of an archive whose name `wanted` accepts, read into memory in one pass.

    Links and devices in a tar are left out, and what macOS adds beside the files (`._NAME`, `__MACOSX`).

    Args:
        archive: A `.zip`, or a tar, compressed or not.
        wanted: Called with the name of every file.

    Raises:
        DataError: A member's name leads outside the archive's folder, the archive is missing or broken, or unpacks to
            more than `robustvision_core.data.reading.limits.most_unpacked`.
    """
    path = pathlib.Path(archive)
    with _opened(path) as opened:
        if isinstance(opened, zipfile.ZipFile):
            infos = [i for i in opened.infolist() if not i.is_dir() and _is_meant(i.filename) and wanted(i.filename)]
            check_unpacked(path, sum(info.file_size for info in infos))
            return {info.filename: opened.read(info) for info in infos}
        chosen = [m for m in opened.getmembers() if m.isreg() and _is_meant(m.name) and wanted(m.name)]
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
                size, most = 0, most_unpacked(archive)
                for member in opened:  # unpacks all before it: the sizes are added up on the way
                    _check_name(archive, member.name)
                    size += member.size
                    check_unpacked(archive, size, most)
                yield opened
    except _BROKEN as error:
        raise DataError(f"{archive} is truncated or no archive, or cannot be unpacked: {error}") from error


def _is_meant(name: str) -> bool:
    """Whether a member is one of the files, not what macOS notes about one."""
    parts = name.split("/")
    return "__MACOSX" not in parts and not parts[-1].startswith("._")


def _check_name(archive: pathlib.Path, name: str) -> None:
    parts = re.split(r"[/\\]", name)  # a backslash separates on Windows
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{archive} is refused: its member {name!r} would land outside the folder")


def _open_member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(member)
    if file is None:
        raise tarfile.ExtractError(f"{member.name} is no file")
    return file
