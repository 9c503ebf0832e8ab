"""A table of loaders by name; nothing that it names is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from robustvision_core.data.registry.query import Query, data_root
from robustvision_core.errors import MissingSplitError, UserError, unknown_name

TRAIN_TEST = ("train", "test")
ROOM = "robustvision_core.data"  # where the modules of the built-in tables are

T = TypeVar("T")
Loader = TypeVar("Loader", bound=Callable[..., Any])


@dataclass(frozen=True)
class Source:
    """One data set of a table.

    Attributes:
        about: One line for lists.
        target: `load(query, **options)`, or where to find it, as `"module:function"`; a module with a dot before it is
            in `robustvision_core.data`.
        splits: The splits that it has.
        takes_path: The name is written with a path behind it, as in `npz:PATH`.
        files: As `target`, `list(query) -> ImageFiles`, where images can be listed without decoding them; else empty.
    """

    about: str
    target: str | Callable[..., Any]
    splits: tuple[str, ...] = TRAIN_TEST
    takes_path: bool = False
    files: str | Callable[..., Any] = ""

    def loader(self) -> Callable[..., Any]:
        """The function that loads, imported now if it was not."""
        return _found(self.target)

    def lister(self) -> Callable[..., Any] | None:
        """The function that lists images without decoding them, or None."""
        return _found(self.files) if self.files else None

    def options(self) -> list[str]:
        """Names of the options that the loader takes."""
        return list(inspect.signature(self.loader()).parameters)[1:]


class Registry(Generic[T]):
    """Data sets of one type by name: a table, what a program registers, and what installed distributions add.

    A distribution adds a name by an entry point whose object is a `Source`, or a function `load(query, **options)`
    with the splits `train` and `test`. A name of the table goes before one of a distribution.

    Args:
        kind: What its sets are called in errors.
        group: The group of such entry points.
        table: The built-in sets.
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, Source]) -> None:
        self.kind, self.group = kind, group
        self.table = dict(table)

    def register(
        self, name: str, about: str, splits: tuple[str, ...] = TRAIN_TEST, takes_path: bool = False
    ) -> Callable[[Loader], Loader]:
        """Register the decorated `load(query, **options)` under `name`, for this process.

        Args:
            name: What users write.
            about: One line for lists.
            splits: The splits that it has.
            takes_path: The name is written with a path behind it, as in `npz:PATH`.

        Raises:
            ValueError: The name is taken.
        """

        def add(load: Loader) -> Loader:
            if name in self.table:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self.table[name] = Source(about, load, splits, takes_path)
            return load

        return add

    def names(self) -> dict[str, str]:
        """Every name and what it is, in one line each; sets that need a path are written `name:PATH`."""
        held = {f"{name}:PATH" if source.takes_path else name: source.about for name, source in self.table.items()}
        added = {point.name: f"added by {_distribution(point)}" for point in self._entry_points()}
        return dict(sorted((added | held).items()))

    def source(self, name: str) -> Source:
        """The source of a name, without what follows a colon.

        Raises:
            UserError: No such name, or the distribution that adds it cannot be imported.
        """
        if name in self.table:
            return self.table[name]
        points = [point for point in self._entry_points() if point.name == name]
        if not points:
            raise unknown_name(self.kind, name, self.names())
        if len(points) > 1:
            raise UserError(f"{self.kind} {name!r} is added by {' and by '.join(map(_distribution, points))}")
        return self._imported(points[0])

    def load(
        self, name: str, split: str, root: str | os.PathLike[str] | None, download: bool, options: Mapping[str, Any]
    ) -> T:
        """What the source of `name` gives.

        Args:
            name: One of `names`.
            split: One of the source's.
            root: The folder of all data sets; None as in `data_root`.
            download: Fetch what is missing, where the source can.
            options: What the source takes besides.

        Raises:
            UserError: No such set, split or option.
        """
        source, query = self.query(name, split, root, download)
        known = source.options()
        for option in options:
            if option not in known:
                raise unknown_name(f"option of {query.name}", option, known or ["none"])
        return source.loader()(query, **options)

    def query(
        self, name: str, split: str, root: str | os.PathLike[str] | None, download: bool = False
    ) -> tuple[Source, Query]:
        """The source of a name as users write it, and what it is asked for; arguments and errors as of `load`."""
        name, colon, path = name.partition(":")
        source = self.source(name)
        if source.takes_path != bool(path):
            expected = f"{name}:PATH" if source.takes_path else name
            raise UserError(f"{self.kind} {name + colon + path!r} is written {expected}")
        if split not in source.splits:
            raise MissingSplitError(str(unknown_name(f"split of {name}", split, source.splits)))
        return source, Query(name, split, data_root(root), download, path)

    def _entry_points(self) -> tuple[importlib.metadata.EntryPoint, ...]:
        return tuple(importlib.metadata.entry_points(group=self.group))

    def _imported(self, point: importlib.metadata.EntryPoint) -> Source:
        try:
            held = point.load()
        except Exception as error:  # whatever the code of others raises
            raise UserError(
                f"{self.kind} {point.name!r}, added by {_distribution(point)}, cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if isinstance(held, Source):
            return held
        if callable(held):
            return Source(f"added by {_distribution(point)}", held)
        raise UserError(
            f"{self.kind} {point.name!r}, added by {_distribution(point)}, is a {type(held).__name__}: "
            "expected a Source or a function load(query, **options)"
        )


def _found(target: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function that `target` is, or says where to find."""
    if not isinstance(target, str):
        return target
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module, ROOM), function)


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
