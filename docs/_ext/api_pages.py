"""A page for every room of every library, with every public name that the stubs list."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import textwrap
from typing import Any

import inventory
from docstrings import to_rest
from sphinx.application import Sphinx


def pages() -> dict[str, str]:
    """Every page by its path: the index, one a library and one a room."""
    made = {}
    for library in inventory.LIBRARIES:
        rooms = inventory.public_names(library)
        made[f"{library}/index.rst"] = _library_page(library, rooms)
        made |= {f"{library}/{room}.rst": _room_page(library, room, names) for room, names in rooms.items()}
    entries = "".join(f"   {library}/index\n" for library in inventory.LIBRARIES)
    text = (
        "Every public name of every package, by the room that it stands in. A name is imported from the package "
        "itself, as in ``from fdiv_noisy import FDivergenceLoss``; the rooms say where its code is."
    )
    return made | {"index.rst": f"{title('API reference')}\n{text}\n\n.. toctree::\n   :maxdepth: 2\n\n{entries}"}


def _library_page(library: str, rooms: dict[str, list[str]]) -> str:
    parts = [title(library), inventory.summary(library) + ".\n"]
    for room, names in rooms.items():
        lines = [(f":py:obj:`{library}.{name}`", _first_line(library, room, name)) for name in names]
        parts += [title(f":doc:`{room} <{room}>`", "-"), inventory.summary(f"{library}.{room}") + ".\n", table(lines)]
    entries = "".join(f"   {room}\n" for room in rooms)
    return "\n".join([*parts, f".. toctree::\n   :hidden:\n\n{entries}"])


def table(lines: list[tuple[str, str]]) -> str:
    """A table of names and what they are."""
    rows = "".join(f"   * - {name}\n     - {text}\n" for name, text in lines)
    return f".. list-table::\n   :widths: 35 65\n   :class: names\n\n{rows}"


def _room_page(library: str, room: str, names: list[str]) -> str:
    head = [title(f"{library}.{room}"), f"{inventory.summary(f'{library}.{room}')}.\n"]
    return "\n".join([*head, *(_entry(library, room, name) for name in names)])


def _entry(library: str, room: str, name: str) -> str:
    value = getattr(importlib.import_module(library), name)
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return f".. {kind}:: {library}.{name}\n   :members:\n"
    if inspect.isfunction(value):
        return f".. autofunction:: {library}.{name}\n"
    text = to_rest(inventory.text_of(library, room, name))
    if isinstance(value, dict):
        text += " Names: " + ", ".join(f"``{key}``" for key in value) + "."
    kind = "function" if callable(value) else "data"
    signature = str(inspect.signature(value)) if callable(value) else ""
    return f".. py:{kind}:: {library}.{name}{signature}\n\n" + textwrap.indent(text, "   ") + "\n"


def _first_line(library: str, room: str, name: str) -> str:
    return " ".join(to_rest(inventory.text_of(library, room, name).split("\n\n")[0]).split())


def title(text: str, line: str = "=") -> str:
    """A heading."""
    return f"{text}\n{line * (len(text) + 2)}\n"


def save(folder: pathlib.Path, pages: dict[str, str]) -> None:
    """Write pages by their path below `folder`, but for those that stand there already, and remove all others."""
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.rst"):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: save(pathlib.Path(app.srcdir) / "reference", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
