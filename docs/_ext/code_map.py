"""The map of the code: what lies in each room, and which rooms may import which, from the code and its contracts."""

from __future__ import annotations

import pathlib
import tomllib
from typing import Any

import inventory
from api_pages import save, table, title
from sphinx.application import Sphinx

HEAD = """
Five packages stand on one core and never import each other. In each package the library is apart from ``cli``: the
library imports PyTorch and its own field's libraries only, the command line needs the core. Rooms are folders or files
named after the things of the field.

In the lists of layers a line may import from the lines below it, never from those above; rooms in one line are of equal
rank. ``make lint`` holds the code to them. Behind each room stands the first line of its docstring.
"""


def pages() -> dict[str, str]:
    """One page."""
    contracts = tomllib.loads((inventory.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = {name: one["layers"] for one in contracts["contracts"] for name in one.get("containers", [])}
    parts = [title("Map of the code"), HEAD]
    for package in ["robustvision_core", *inventory.PACKAGES]:
        parts += [title(package.replace("_", "-"), "-"), inventory.summary(package) + ".\n"]
        parts += [".. code-block:: text\n", *(f"   {line}" for line in layers[package]), ""]
        parts.append(table([(f"``{room}``", inventory.summary(f"{package}.{room}") + ".") for room in rooms(package)]))
    return {"index.rst": "\n".join(parts)}


def rooms(package: str) -> list[str]:
    """Names of the folders and files of a package, public ones, in the order of a listing."""
    found = [path for path in inventory.source(package).iterdir() if not path.name.startswith(("_", "."))]
    return sorted(path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists())


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the page before Sphinx looks for it."""
    app.connect("builder-inited", lambda app: save(pathlib.Path(app.srcdir) / "map", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
