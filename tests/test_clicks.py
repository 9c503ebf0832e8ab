"""The count of clicks from the front page to an answer."""

from __future__ import annotations

import pathlib
from types import ModuleType

import pytest
from robustvision_core.testing.modules import load_module

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_module(ROOT / "scripts" / "clicks.py")


@pytest.fixture
def site(tmp_path: pathlib.Path) -> pathlib.Path:
    """Four pages in a row, and one that nothing links to."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "index.html").write_text('<a href="one.html#top">one</a> <a href="https://elsewhere.org/x.html">x</a>')
    (tmp_path / "one.html").write_text('<a href="deep/two.html">two</a>')
    (tmp_path / "deep" / "two.html").write_text(
        '<a href="../three.html?q=1">three</a> <a href="../index.html">home</a>'
    )
    (tmp_path / "three.html").write_text('<h2 id="here">here</h2>')
    (tmp_path / "alone.html").write_text("")
    return tmp_path


def test_clicks_are_counted(script: ModuleType, site: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "one": ["one.html"],
        "both": ["one.html", "deep/two.html"],
        "behind a query": ["three.html#here"],
        "heading": ["one.html#missing"],
        "alone": ["alone.html"],
    }
    monkeypatch.setattr(script, "ANSWERS", answers)
    assert script.clicks(site) == {"one": 1, "both": 2, "behind a query": 3, "heading": None, "alone": None}


def test_status_says_what_is_too_far(script: ModuleType, site: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SITE", site)
    monkeypatch.setattr(script, "ANSWERS", {"far": ["deep/two.html"]})
    assert script.main() == 0
    monkeypatch.setattr(script, "MOST", 1)
    assert script.main() == 1


def test_every_answer_is_a_page_of_the_docs(script: ModuleType) -> None:
    for answers in script.ANSWERS.values():
        for answer in answers:
            page = answer.partition("#")[0].replace(".html", ".md")
            assert page.startswith("cli/") or (ROOT / "docs" / page).is_file(), answer
