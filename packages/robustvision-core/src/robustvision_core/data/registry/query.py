"""What a data set is asked for, and where data sets lie."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

from robustvision_core.errors import DataError

ROOT_VARIABLE = "ROBUSTVISION_DATA"


@dataclass(frozen=True)
class Query:
    """What a source is asked for.

    Attributes:
        name: Name of the data set, as registered.
        split: One of the source's splits.
        root: The folder of all data sets; it may not exist.
        download: Whether the source may fetch what is missing.
        path: What followed the colon in names like `npz:PATH`; else empty.
    """

    name: str
    split: str
    root: pathlib.Path
    download: bool = False
    path: str = ""

    @property
    def place(self) -> str:
        """The path behind the name: from where we are, or from `root` where it is only there."""
        own, shared = pathlib.Path(self.path).expanduser(), self.root / self.path
        return str(shared if shared.exists() and not own.exists() else own)

    @property
    def title(self) -> str:
        """What to call the loaded set."""
        return f"{self.name}/{self.split}"

    def missing(self, what: str, where: pathlib.Path, can_download: bool = False) -> DataError:
        """The error for a file that is not there.

        Args:
            what: The file looked for.
            where: The folder it would go to.
            can_download: Whether `download=True` fetches it, `--download` of the command line.
        """
        fetch = "fetch it with --download (download=True), or " if can_download else ""
        state = "" if self.root.is_dir() else " (no such folder)"
        return DataError(
            f"{self.name}: found no {what} under {self.root}{state}: {fetch}put it in {where}, "
            f"or name another root with --data-root or {ROOT_VARIABLE}"
        )


def data_root(root: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder of all data sets: `root`, else the variable `ROBUSTVISION_DATA`, else the user's cache."""
    chosen = root or os.environ.get(ROOT_VARIABLE) or "~/.cache/robustvision"
    return pathlib.Path(chosen).expanduser()
