"""Count the clicks from the front page of the built site to the answers that newcomers look for; three at most.

`make docs` runs it. An answer is a page and a heading on it; every link of a page counts, those of its menus too.
"""

from __future__ import annotations

import pathlib
import sys
from collections import deque
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

SITE = pathlib.Path(__file__).resolve().parent.parent / "site"
MOST = 3
ANSWERS = {
    "How do I predict on my own images?": ["guides/predict.html#from-a-finished-run"],
    "How do I train on my own data?": ["guides/own-data.html#a-folder-of-images"],
    "How do I use my own model?": ["guides/own-model.html"],
    "How do I train longer?": ["guides/training.html#longer"],
    "How do I go on after a stop?": ["guides/training.html#resume"],
    "What does each train option mean?": [
        f"cli/{name}.html#cmdoption-{name}-train-epochs"
        for name in ("fdiv-noisy", "pseudolabel-da", "flowaug", "rml-meta", "diffpnp-pose")
    ],
    "Which loss should I take?": ["fdiv-noisy/howto.html#which-loss-should-i-take"],
    "Which selector should I take?": ["pseudolabel-da/howto.html#which-selector-should-i-take"],
    "Which backend should I take?": ["rml-meta/howto.html#which-backend-of-the-inner-loop"],
    "Which solver should I take?": ["diffpnp-pose/howto.html#which-solver-and-which-gradient"],
    "How do I read the diagnosis?": ["pseudolabel-da/howto.html#read-the-diagnosis"],
    "Does it run on my GPU cluster?": ["guides/several-gpus.html#slurm"],
}


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag links to and is called."""
        held = dict(attrs)
        if tag == "a" and (target := held.get("href")):
            self.links.append(target)
        if name := held.get("id"):
            self.anchors.add(name)


def distances(site: pathlib.Path, start: str = "index.html") -> tuple[dict[str, int], dict[str, Page]]:
    """Clicks from `start` to every page that links reach, and the pages."""
    found, pages, waiting = {start: 0}, {}, deque([start])
    while waiting:
        name = waiting.popleft()
        pages[name] = Page((site / name).read_text(encoding="utf-8"))
        for target in reached(name, pages[name].links):
            if target not in found and (site / target).is_file():
                found[target] = found[name] + 1
                waiting.append(target)
    return found, pages


def reached(page: str, links: Iterable[str]) -> Iterable[str]:
    """Pages of the same site behind links."""
    for link in links:
        if not urlsplit(link).scheme:
            target = unquote(urlsplit(urljoin(page, link)).path)
            if target.endswith(".html"):
                yield target


def clicks(site: pathlib.Path) -> dict[str, int | None]:
    """The longest way to the answers of each question; None where one is not to be found."""
    found, pages = distances(site)
    made: dict[str, int | None] = {}
    for question, answers in ANSWERS.items():
        ways = []
        for answer in answers:
            name, anchor = urldefrag(answer)
            there = name in pages and (not anchor or anchor in pages[name].anchors)
            ways.append(found[name] if there else None)
        made[question] = None if None in ways else max(way for way in ways if way is not None)
    return made


def main() -> int:
    """Print the counts; the status is 1 where an answer is too far or not there."""
    held = clicks(SITE)
    for question, count in held.items():
        print(f"{question:<40} {'no answer' if count is None else f'{count} clicks'}")
    return int(any(count is None or count > MOST for count in held.values()))


if __name__ == "__main__":
    sys.exit(main())
