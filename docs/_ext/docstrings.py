"""Docstrings as the packages write them, with `code` in single backticks and $formulas$, to reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python._object import PyObject

PARTS = re.compile(
    r"(?P<session>^[ ]*(?:>>>|\.\.\.)[^\n]*$)"
    r"|(?P<double>``.+?``)"
    r"|(?P<role>:[a-z:]+:`[^`]+`)"
    r"|(?P<code>`[^`]+`)"
    r"|(?P<block>\$\$.+?\$\$)"
    r"|(?P<math>(?<![\w$])\$(?=\S)[^$]+?(?<=\S)\$(?![\w$]))",
    re.DOTALL | re.MULTILINE,
)
NAME = re.compile(r"[A-Za-z_][\w.]*")


def to_rest(text: str) -> str:
    """A docstring's text in reStructuredText; what is no code and no formula stays, but for lone stars and bars."""
    made, last = [], 0
    for part in PARTS.finditer(text):
        made += [_escape(text[last : part.start()]), _convert(part, text)]
        last = part.end()
    return "".join([*made, _escape(text[last:])])


def _convert(part: re.Match[str], text: str) -> str:
    said = part.group()
    if part.lastgroup == "code":
        code = " ".join(said[1:-1].split())
        return f":py:obj:`{code}`" if NAME.fullmatch(code) else f"``{code}``"  # a name may be a link
    if part.lastgroup == "math":
        return f":math:`{' '.join(said[1:-1].split())}`"
    if part.lastgroup == "block":
        indent = _indent(text, part.start())
        return f"\n{indent}.. math:: {' '.join(said[2:-2].split())}\n"
    return said


def _indent(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip())]


def _escape(text: str) -> str:
    text = re.sub(r"(?<![*\w\\])\*(?![*\s])|(?<=\w)\*(?=\w)", r"\\*", text)
    text = re.sub(r"(?<!\\)\|", r"\\|", text)
    return re.sub(r"(?<=\w)_(?=[\s.,;:)]|$)", r"\\_", text)


def _process(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    lines[:] = to_rest("\n".join(lines)).split("\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Convert before napoleon reads the sections; call the attributes of a class what they are."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
