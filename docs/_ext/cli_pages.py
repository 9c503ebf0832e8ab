"""A page for every command, with every option of every verb as its parser has it."""

from __future__ import annotations

import dataclasses
import pathlib
import types
import typing
from typing import Any, Literal, Union

import inventory
from api_pages import save, table, title
from docstrings import to_rest
from inventory import Option, Verb
from sphinx.application import Sphinx

WORDS = {int: "INT", float: "FLOAT", str: "TEXT", pathlib.Path: "PATH"}


def pages() -> dict[str, str]:
    """Every page by its path: the index and one a package."""
    made = {}
    for package in inventory.PACKAGES:
        verbs = list(inventory.verbs(package))
        made[f"{_dist(package)}.rst"] = "\n".join([_head(package, verbs), *map(_verb, verbs)])
    entries = "".join(f"   {_dist(package)}\n" for package in inventory.PACKAGES)
    text = (
        "Every package with its ``[train]`` extra installs a command of its name; ``python -m PACKAGE`` is the same. "
        "``--help`` after a verb prints what stands here. A group's option can be written with a hyphen in place of "
        "the dot: ``--inner-steps`` is ``--inner.steps``."
    )
    return made | {"index.rst": f"{title('Command line (CLI)')}\n{text}\n\n.. toctree::\n   :maxdepth: 2\n\n{entries}"}


def metavar(kind: Any) -> str:
    """What stands for a value of the type `kind` on the command line."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, args)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(metavar(one) for one in args)
    if origin is tuple:
        items = [metavar(one) for one in args if one is not Ellipsis]
        return " ".join(items) + (" ..." if Ellipsis in args else "")
    return "None" if kind is type(None) else WORDS.get(kind, getattr(kind, "__name__", str(kind)).upper())


def shown(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(shown(item) for item in value) or "none"
    return '""' if value == "" else str(value)


def _head(package: str, verbs: list[Verb]) -> str:
    lines = [(f":ref:`{verb.name} <{_label(verb)}>`", verb.help) for verb in verbs]
    return f"{title(_dist(package))}\n{table(lines)}"


def _verb(verb: Verb) -> str:
    options, groups = inventory.options(verb.config), inventory.groups(verb.config)
    parts = [f".. _{_label(verb)}:\n", title(verb.program, "-"), f".. program:: {verb.program}\n"]
    parts += [f".. code-block:: text\n\n   {verb.program} [options]\n", _prose(groups[""])]
    parts.append(_presets(verb.config))
    for group in sorted({option.group for option in options}, key=lambda name: (name != "", name)):
        if group:
            parts += [title(f"``--{group.replace('_', '-')}.*``", "^"), _prose(groups[group])]
        parts += [_option(option) for option in options if option.group == group]
    return "\n".join(parts)


def _prose(docstring: str) -> str:
    """The part of a docstring before its sections."""
    kept = []
    for line in docstring.split("\n"):
        if line.strip() in ("Args:", "Attributes:", "Raises:", "Example:", "Returns:"):
            break
        kept.append(line)
    return to_rest("\n".join(kept)).strip() + "\n"


def _presets(config: type) -> str:
    names = list(getattr(config, "PRESETS", {}))
    if not names:
        return ""
    said = ", ".join(f"``{name}``" for name in names)
    return f"Presets, which set the defaults of the other options: {said}; the first where none is named.\n"


def _option(option: Option) -> str:
    flag = option.flag
    if option.kind is bool:
        head, dot, leaf = flag[2:].rpartition(".")
        spelled = f"{flag}, --{head}{dot}no-{leaf}"
    else:
        spelled = f"{flag} {metavar(option.kind)}"
    lines = [f".. option:: {spelled}", "", *(f"   {line}".rstrip() for line in to_rest(option.text).split("\n")), ""]
    lines.append(f"   {_default(option)}")
    if option.former:
        names = ", ".join("``--" + name.replace("_", "-") + "``" for name in option.former)
        lines += ["", f"   Formerly {names}, which still works."]
    return "\n".join([*lines, ""])


def _default(option: Option) -> str:
    if option.default is dataclasses.MISSING:
        return "Must be given."
    others: dict[str, list[str]] = {}
    for preset, value in option.presets.items():
        others.setdefault(shown(value), []).append(f"``{preset}``")
    said = "; ".join(f"``{value}`` with {', '.join(names)}" for value, names in others.items())
    return f"Default: ``{shown(option.default)}``" + (f"; {said}." if said else ".")


def _label(verb: Verb) -> str:
    return "cli-" + verb.program.replace(" ", "-")


def _dist(package: str) -> str:
    return package.replace("_", "-")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", lambda app: save(pathlib.Path(app.srcdir) / "cli", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
