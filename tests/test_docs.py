"""What the documentation's pages say: their commands exist, their examples run, nothing public is left out."""

from __future__ import annotations

import importlib
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
from robustvision_core.cli.dispatch import split_verb
from robustvision_core.cli.parsing import parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = ("_build", "reference", "cli", "map", "tutorials")
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.relative_to(DOCS).parts[0] not in GENERATED]
PACKAGES = sorted(path.name for path in ROOT.glob("packages/*") if path.name != "robustvision-core")


def blocks(language: str) -> Iterator[tuple[pathlib.Path, str]]:
    for path in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        if language == "python" and path.name == "CONTRIBUTING.md":
            continue  # test_contributing.py runs these
        for block in re.findall(
            rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            yield path, block


def commands() -> Iterator[tuple[str, list[str]]]:
    """Package and words of every command in the pages."""
    for _, block in blocks("shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in PACKAGES:
                yield words[0].replace("-", "_"), words[1:]


@pytest.mark.parametrize(
    ("package", "words"), [pytest.param(*one, id=" ".join([one[0], *one[1]])) for one in commands()]
)
def test_command_parses(package: str, words: list[str]) -> None:
    table = importlib.import_module(f"{package}.cli").COMMANDS
    verb, rest = split_verb(words, table)
    module, _, name = table[verb][2].partition(":")
    parse(getattr(importlib.import_module(module, f"{package}.cli"), name), rest, f"{package} {verb}")


def test_every_package_shows_commands() -> None:
    assert {package for package, _ in commands()} == {name.replace("-", "_") for name in PACKAGES}


RUNNER = """
import sys, torch
torch.set_num_threads(1)
for page in sys.argv[1:]:
    print("examples of", page, file=sys.stderr)
    torch.manual_seed(0)
    exec(compile(open(page).read(), page, "exec"), {"__name__": "example"})
"""


def test_examples_run(tmp_path: pathlib.Path) -> None:
    """The examples of a page run one after another; all pages in one process, for torch takes seconds to import."""
    pages: dict[str, str] = {}
    for path, block in blocks("python"):
        name = path.relative_to(ROOT).as_posix().replace("/", ".")
        pages[name] = pages.get(name, "") + block
    for name, code in pages.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-c", RUNNER, *pages]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_page_is_clean(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"\\[(\[]|\\begin\{equation|^:::", re.sub(r"^:::+\{?.*$", "", text, flags=re.MULTILINE), re.MULTILINE
    )
    assert not re.search(r"https?://\S*(pypi|/simple)|/(root|work|home)/", text)


def test_docstrings_become_restructuredtext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    to_rest = importlib.import_module("docstrings").to_rest
    assert to_rest("`solve_pnp` of `a + b`") == ":py:obj:`solve_pnp` of ``a + b``"
    assert to_rest("rates $e_j \\ge 0$, 5$") == "rates :math:`e_j \\ge 0`, 5$"
    assert to_rest("T*x, |a| and **bold**") == "T\\*x, \\|a\\| and **bold**"
    assert to_rest("a name_ and x_train") == "a name\\_ and x_train"
    assert to_rest("    >>> f(`a`, $b$)") == "    >>> f(`a`, $b$)"


def test_formulas_become_mathml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    mathml = importlib.import_module("mathml")
    element = mathml.to_mathml(r"\frac{1}{2} x_i", "inline")
    assert element.startswith("<math alttext=")
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in element
    with pytest.raises(Exception, match="no MathML"):
        mathml.to_mathml(r"\nosuchcommand{x}", "block")


def test_options_are_read_from_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    inventory, cli_pages = importlib.import_module("inventory"), importlib.import_module("cli_pages")
    recipes = importlib.import_module("fdiv_noisy.cli.recipes")
    held = {option.path: option for option in inventory.options(recipes.TrainConfig)}
    assert held["epochs"].default == recipes.TrainConfig.PRESETS["quick"].epochs
    assert held["epochs"].presets["mnist-paper"] == recipes.TrainConfig.PRESETS["mnist-paper"].epochs
    assert all(option.text for option in held.values())
    page = cli_pages.pages()["fdiv-noisy.rst"]
    assert f"``{recipes.TrainConfig.PRESETS['mnist-paper'].epochs}`` with" in page
    for verb in inventory.verbs("fdiv_noisy"):
        for option in inventory.options(verb.config):
            assert f".. option:: {option.flag}" in page


def test_every_public_name_and_verb_has_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    api, cli = importlib.import_module("api_pages").pages(), importlib.import_module("cli_pages").pages()
    inventory = importlib.import_module("inventory")
    entries = set(re.findall(r"^\.\. [a-z:]+:: ([\w.]+)", "\n".join(api.values()), re.MULTILINE))
    wanted = set((ROOT / "tests" / "public_api.txt").read_text().split())
    assert wanted <= entries, sorted(wanted - entries)
    for package in inventory.PACKAGES:
        page = cli[f"{package.replace('_', '-')}.rst"]
        for name in importlib.import_module(f"{package}.cli").COMMANDS:
            assert f".. program:: {package.replace('_', '-')} {name}\n" in page
