"""Data sets by name."""

from __future__ import annotations

import importlib
import inspect
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError, UserError, unknown_name

ROOT_VARIABLE = "ROBUSTVISION_DATA"
TRAIN_TEST = ("train", "test")

Loader = TypeVar("Loader", bound=Callable[..., Any])


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


@dataclass(frozen=True)
class Source:
    """One registered data set."""

    about: str
    splits: tuple[str, ...]
    load: Callable[..., Any]
    takes_path: bool

    @property
    def options(self) -> list[str]:
        """Names of the options its loader takes."""
        return list(inspect.signature(self.load).parameters)[1:]


_SOURCES: dict[str, Source] = {}


def register(
    name: str,
    about: str,
    splits: tuple[str, ...] = TRAIN_TEST,
    takes_path: bool = False,
    table: dict[str, Source] | None = None,
) -> Callable[[Loader], Loader]:
    """Register the decorated `load(query, **options) -> ImageSet` under `name`.

    Args:
        name: What users write.
        about: One line for lists.
        splits: The splits that it has.
        takes_path: The name is written with a path behind it, as in `npz:PATH`.
        table: Where to; None is the table of image sets. Sets of another type have their own.
    """

    def add(load: Loader) -> Loader:
        sources = _SOURCES if table is None else table
        if name in sources:
            raise ValueError(f"two data sets are called {name!r}")
        sources[name] = Source(about, splits, load, takes_path)
        return load

    return add


def names() -> dict[str, str]:
    """Every data set and what it is, in one line each; sets that need a path are written `name:PATH`."""
    return described(_sources())


def described(sources: dict[str, Source]) -> dict[str, str]:
    """What `names` gives, of any table."""
    return {f"{name}:PATH" if s.takes_path else name: s.about for name, s in sorted(sources.items())}


def load(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> ImageSet:
    """Load a data set.

    Args:
        name: One of `names`.
        split: `train` or `test`; some sets have `val`.
        root: The folder of all data sets; None takes the variable `ROBUSTVISION_DATA`, else
            `~/.cache/robustvision`.
        download: Fetch what is missing, where the source can.
        options: What the source takes besides, as `size` of digits.

    Raises:
        UserError: No such set, split or option.
        DataError: Files are missing, truncated or hold what they must not; the message names the file.
    """
    return look_up(_sources(), "data set", name, split, root, download, options)


def look_up(
    sources: dict[str, Source],
    kind: str,
    name: str,
    split: str,
    root: str | os.PathLike[str] | None,
    download: bool,
    options: dict[str, Any],
) -> Any:
    """What `load` does, of any table; `kind` is what its sets are called in errors."""
    name, colon, path = name.partition(":")
    if name not in sources:
        raise unknown_name(kind, name, described(sources))
    source = sources[name]
    if source.takes_path != bool(path):
        expected = f"{name}:PATH" if source.takes_path else name
        raise UserError(f"{kind} {name + colon + path!r} is written {expected}")
    if split not in source.splits:
        raise unknown_name(f"split of {name}", split, source.splits)
    for option in options:
        if option not in source.options:
            raise unknown_name(f"option of {name}", option, source.options or ["none"])
    return source.load(Query(name, split, data_root(root), download, path), **options)


def data_root(root: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder of all data sets: `root`, else the variable `ROBUSTVISION_DATA`, else the user's cache."""
    chosen = root or os.environ.get(ROOT_VARIABLE) or "~/.cache/robustvision"
    return pathlib.Path(chosen).expanduser()


def _sources() -> dict[str, Source]:
    importlib.import_module("robustvision_core.data.sources")  # here, for its modules import this one
    return _SOURCES
