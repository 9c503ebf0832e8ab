"""Formulas as MathML, made when the site is built: no script, no font, no network is needed to read them."""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator


def to_mathml(latex: str, display: str) -> str:
    """The `<math>` element of a formula, with its source as the text that screen readers and copying take.

    Raises:
        ExtensionError: A command is left in the result as it was written: the converter does not know it.
    """
    latex = " ".join(latex.split())
    element = convert(latex, display=display)
    if "<mi>\\" in element or "<mtext>\\" in element:
        raise ExtensionError(f"no MathML for all of {latex}")
    return element.replace("<math ", f'<math alttext="{html.escape(latex.replace(chr(92), ""))}" ', 1)


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
