"""The front page of the site is the README, with its links and pictures as the site has them."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from sphinx.application import Sphinx

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
MARK = "<!-- README -->"
PICTURE = re.compile(r'<picture>.*?<img src="docs/(\S+)\.svg" alt="([^"]*)"></picture>')
LINKS = {
    r"\]\(docs/": "](",
    r"\]\(packages/robustvision-core\)": "](map/index.rst)",
    r"\]\(packages/([\w-]+)\)": r"](\1/index.md)",
}


def front(readme: str) -> str:
    """The README for the site, without its part on working on the code."""
    text = readme.partition("\n## Working on it")[0]
    for old, new in LINKS.items():
        text = re.sub(old, new, text)
    return PICTURE.sub(_images, text)


def _images(found: re.Match[str]) -> str:
    path, said = found.groups()
    shown = (("", "only-light"), ("-dark", "only-dark"))
    return "".join(
        f"\n```{{image}} {path}{suffix}.svg\n:alt: {said}\n:class: {theme}\n```\n" for suffix, theme in shown
    )


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if name == "index":
        source[0] = source[0].replace(MARK, front(README.read_text(encoding="utf-8")))
        app.env.note_dependency(str(README))


def setup(app: Sphinx) -> dict[str, Any]:
    """Put the README in when the page is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
