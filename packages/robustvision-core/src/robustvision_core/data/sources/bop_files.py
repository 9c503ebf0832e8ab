"""The files of a data set of the BOP challenge, unpacked or not."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from robustvision_core.config import parse_json
from robustvision_core.data.reading.archives import read_members
from robustvision_core.errors import DataError

_TOP = re.compile(r"(train|val|test|models)[^/]*/|[^/]+$")  # what stands at the top of a data set


class BopFiles:
    """The files of a data set by their path below its top folder, in a folder or in zips."""

    def __init__(self, sources: list[pathlib.Path], about: str) -> None:
        self.about = about
        self.name = sources[0].stem
        self._where: dict[str, tuple[pathlib.Path, str]] = {}
        for source in sources:
            for member in _list(source):
                name, (first, _, rest) = member, member.partition("/")
                if not _TOP.match(member) and _TOP.match(rest):  # archives of BOP begin with the data set's name or not
                    self.name, name = first, rest
                self._where.setdefault(name, (source, member))

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    @classmethod
    def at(cls, path: pathlib.Path) -> BopFiles:
        """Of a data set's folder, a zip, or a folder of zips."""
        if path.is_file():
            return cls([path], str(path))
        if not path.is_dir():
            raise DataError(f"there is no folder or zip {path}")
        archives = [] if any(path.glob("*/*/scene_gt.json")) else sorted(path.glob("*.zip"))
        return cls(archives or [path], str(path))

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of files, each archive read once."""
        held: dict[str, bytes] = {}
        by_source: dict[pathlib.Path, dict[str, str]] = {}
        for name in names:
            source, member = self._where[name]
            by_source.setdefault(source, {})[member] = name
        for source, members in by_source.items():
            if source.is_dir():
                held |= {name: (source / member).read_bytes() for member, name in members.items()}
            else:
                read = read_members(source, members.__contains__)
                held |= {members[member]: raw for member, raw in read.items()}
        return held

    def sources(self, names: Sequence[str]) -> list[pathlib.Path | bytes]:
        """Paths where the files lie in a folder, else their contents: what decoding takes."""
        if all(self._where[name][0].is_dir() for name in names):
            return [source / member for source, member in (self._where[name] for name in names)]
        held = self.read(names)
        return [held[name] for name in names]

    def json(self, name: str) -> dict[str, Any]:
        """The table in a file; empty where it is missing."""
        if name not in self._where:
            return {}
        held = parse_json(self.read([name])[name], f"{self.about}: {name}", DataError)
        if not isinstance(held, dict):
            raise DataError(f"{self.about}: {name} holds a {type(held).__name__}, expected a table")
        return held


def _list(source: pathlib.Path) -> list[str]:
    if source.is_dir():
        files = (path for path in source.rglob("*.*") if path.is_file() and not path.name.startswith("."))
        return [path.relative_to(source).as_posix() for path in files]
    names: list[str] = []
    read_members(source, lambda name: bool(names.append(name)))  # wants none, sees all
    return names
