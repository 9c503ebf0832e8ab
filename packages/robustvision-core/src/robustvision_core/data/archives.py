"""Zip and tar archives: unpacking that stays inside its folder, and reading without unpacking."""

from __future__ import annotations

import contextlib
import lzma
import os
import pathlib
import posixpath
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from robustvision_core.errors import DataError

StrPath = str | os.PathLike[str]

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)


def safe_extract(archive: StrPath, folder: StrPath) -> pathlib.Path:
    """Unpack a zip or tar archive into a new folder; all of it or nothing.

    The members are checked before anything is written, and unpacked into a temporary folder beside `folder` that
    takes its name at the end. Owners and permissions are not kept.

    Args:
        archive: A `.zip`, or a tar, compressed or not.
        folder: Where to; it must be missing or empty.

    Raises:
        DataError: A member would land or point outside the folder, or is a device; the archive is missing or broken;
            or the folder holds files already.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"cannot unpack {archive} into {folder}: it exists already")
    with _opened(archive) as opened:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            inside = pathlib.Path(temporary) / "unpacked"
            inside.mkdir()
            if isinstance(opened, zipfile.ZipFile):
                opened.extractall(inside)
            else:
                _extract_tar(opened, inside)
            if folder.exists():
                folder.rmdir()
            os.replace(inside, folder)
    return folder


def read_members(archive: StrPath, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of an archive whose name `wanted` accepts, read into memory in one pass.

    Raises:
        DataError: As `safe_extract`.
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
                _check_tar(archive, opened.getmembers())
                yield opened
    except _BROKEN as error:
        raise DataError(f"{archive} is truncated or no archive, or cannot be unpacked: {error}") from error


def _check_name(archive: pathlib.Path, name: str) -> None:
    parts = re.split(r"[/\\]", name)  # a backslash separates on Windows
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{archive} is refused: its member {name!r} would land outside the folder")


def _check_tar(archive: pathlib.Path, members: list[tarfile.TarInfo]) -> None:
    links = {posixpath.normpath(m.name) for m in members if m.issym() or m.islnk()}
    for member in members:
        _check_name(archive, member.name)
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise DataError(f"{archive} is refused: its member {member.name!r} is a device or pipe")
        # a path through a link does not lie where it reads; without those, comparing names is exact
        through = [member.name]
        if member.issym() or member.islnk():
            path = _target(member)
            target = posixpath.normpath(path)
            if target == ".." or target.startswith(("/", "../")) or re.search(r"\\|^[A-Za-z]:", target):
                raise DataError(f"{archive} is refused: its link {member.name!r} points outside, {member.linkname!r}")
            through.append(path)
        if any(parent in links for path in through for parent in _parents(path)):
            raise DataError(f"{archive} is refused: its member {member.name!r} leads through a link")


def _target(link: tarfile.TarInfo) -> str:
    """Where a link points, from the top of the archive; hard links count from there already."""
    start = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.join(start, link.linkname)


def _parents(path: str) -> list[str]:
    """Every folder on the way to `path`, those that a later `..` leaves again included."""
    parts = path.split("/")
    return [posixpath.normpath("/".join(parts[:end]) or ".") for end in range(len(parts))]


def _extract_tar(opened: tarfile.TarFile, folder: pathlib.Path) -> None:
    for member in opened.getmembers():
        path = folder / member.name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(folder / member.linkname, path)
        else:
            with open(path, "wb") as file:
                shutil.copyfileobj(_open_member(opened, member), file)


def _open_member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(member)
    if file is None:
        raise tarfile.ExtractError(f"{member.name} is no file")
    return file
