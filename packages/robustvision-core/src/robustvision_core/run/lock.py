"""One writer for a folder."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from typing import Any

from filelock import FileLock, Timeout

from robustvision_core.errors import UserError

LOCK, HOLDER = ".lock", ".writer.json"


class FolderLock:
    """The right to write into a folder, held by one process until `release` or its end.

    The operating system takes the lock from a process that dies, so that a stale file is no obstacle. Within one
    process it can be taken several times.

    Args:
        folder: Made if it is missing.

    Raises:
        UserError: Another process holds it; the message says which.
        OSError: The folder cannot be made or written.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder.resolve() / LOCK, timeout=0, is_singleton=True)
        try:
            self._lock.acquire()
            while not self._is_of_the_file():  # whoever held it before took the file away in between
                self._lock.release(force=True)
                self._lock.acquire()
        except Timeout:
            raise UserError(f"another process is writing to {folder}{_holder(folder)}: give another --out") from None
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        (folder / HOLDER).write_text(json.dumps(me) + "\n", encoding="utf-8")

    def _is_of_the_file(self) -> bool:
        descriptor = self._lock._context.lock_file_fd
        return descriptor is None or _same_file(self._lock.lock_file, descriptor)

    def release(self) -> None:
        """Give the lock back. Folders that were made for it go again if nothing else is in them."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):  # what is left behind says nothing once the lock is free
            if self._lock.lock_counter == 1:
                (self.folder / HOLDER).unlink(missing_ok=True)
                (self.folder / LOCK).unlink(missing_ok=True)
            for path in self.made:
                path.rmdir()
        self._lock.release()


def _same_file(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(folder: pathlib.Path) -> str:
    try:
        held: dict[str, Any] = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f" (process {held['pid']} on {held['host']}, since {held['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).astimezone().isoformat(sep=" ", timespec="seconds")
