"""The built site in a real browser, at a desk and on a phone, by day and by night; `make browser`."""

from __future__ import annotations

import functools
import http.server
import pathlib
import shutil
import threading
from collections.abc import Iterator

import pytest
from robustvision_core.testing.modules import load_module

ROOT = pathlib.Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)

pytestmark = pytest.mark.browser

TEXT = "document.querySelector('#main-content, main').innerText"
RAW = r"""(() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (element.closest('pre, code, script, style, annotation')) continue;
    if (/\\[a-z]{2,}|\$\$|\\\(|\\\[/i.test(node.data)) found.push(node.data.trim().slice(0, 80));
  }
  return found;
})()"""
WIDE = """(() => {
  const wide = document.documentElement.scrollWidth;
  return wide > window.innerWidth ? [wide, ...[...document.querySelectorAll('main *')]
    .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1).slice(0, 5)
    .map(one => one.outerHTML.slice(0, 160))] : [];
})()"""
# colours are measured at once, not on their way to those of the other theme
STILL = """document.head.insertAdjacentHTML('beforeend', '<style>* { transition: none !important }</style>')"""
LINKS = """[...document.querySelectorAll('a[href]')].map(a => a.href.split('?')[0])"""
ANCHORS = """[...document.querySelectorAll('[id]')].map(one => one.id)"""
# WCAG 2.1, success criterion 1.4.3: 4.5 to 1, and 3 to 1 for text of 24 px, or bold of 18.66 px
CONTRAST = r"""(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = '#000'; canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const ground = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = new Map();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('script, style, template, noscript')) continue;
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(element), below = ground(element), size = parseFloat(style.fontSize);
    const [a, b] = [light(over(rgba(style.color), below)), light(below)].sort((x, y) => y - x);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const ratio = (a + .05) / (b + .05);
    if (ratio < least) poor.set(`${element.tagName}.${element.className}`,
      `${element.tagName}.${element.className} ${ratio.toFixed(2)} "${walker.currentNode.data.trim().slice(0, 30)}"`);
  }
  return [...poor.values()];
})()"""

BROWSER = pathlib.Path(__file__).with_name("browser.py")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    if not PAGES:
        pytest.skip("no site is built: run `make browser`")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tab(site: str) -> Iterator:  # after `site`, so that the reason for a skip is the first that holds
    pytest.importorskip("websocket", reason="needs websocket-client, which `make setup` installs")
    module = load_module(BROWSER)
    program = module.find()
    if program is None:
        pytest.skip(f"none of {', '.join(module.NAMES)} is on this machine")
    browser = module.Browser(program)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def seen(site: str, tab) -> dict[str, dict]:
    """Every page once: its errors, raw TeX, links and anchors; its width on a phone; its contrasts, day and night."""
    found = {}
    for page in PAGES:
        tab.errors.clear()
        tab.window(1280)
        tab.scheme("light")
        tab.open(site + page)
        tab.ask(STILL)
        held = {"raw": tab.ask(RAW), "links": tab.ask(LINKS), "anchors": tab.ask(ANCHORS), "light": tab.ask(CONTRAST)}
        tab.scheme("dark")
        tab.ask("document.documentElement.dataset.theme = 'dark'")
        held["dark"] = tab.ask(CONTRAST)
        tab.window(390, 844)
        held["wide"] = tab.ask(WIDE)
        found[page] = held | {"errors": list(tab.errors)}
    return found


def _named(seen: dict[str, dict], what: str) -> dict[str, list]:
    return {page: held[what] for page, held in seen.items() if held[what]}


def test_no_error_in_the_console(seen: dict[str, dict]) -> None:
    assert not _named(seen, "errors")


def test_no_raw_tex(seen: dict[str, dict]) -> None:
    assert not _named(seen, "raw")


def test_no_sideways_scroll_on_a_phone(seen: dict[str, dict]) -> None:
    assert not _named(seen, "wide")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out(seen: dict[str, dict], theme: str) -> None:
    assert not _named(seen, theme)


def test_links_lead_somewhere(seen: dict[str, dict], site: str) -> None:
    dead = set()
    for page, held in seen.items():
        for link in held["links"]:
            if not link.startswith(site):
                continue
            path, _, anchor = link[len(site) :].partition("#")
            path = path or "index.html"
            if not (SITE / path).is_file():
                dead.add(f"{page}: {path}")
            elif anchor and path in seen and anchor not in seen[path]["anchors"]:
                dead.add(f"{page}: {path}#{anchor}")
    assert not dead


def test_nothing_is_fetched_from_elsewhere(seen: dict[str, dict]) -> None:
    outside = ('src="http', "src='http", 'rel="stylesheet" href="http', "@import url(http")
    for page in seen:
        text = (SITE / page).read_text(encoding="utf-8")
        assert not [mark for mark in outside if mark in text], page


def test_formulas_are_drawn(tab, site: str) -> None:
    page = next(page for page in PAGES if "<mfrac" in (SITE / page).read_text(encoding="utf-8"))
    tab.open(site + page)
    width, height = tab.ask("(r => [r.width, r.height])(document.querySelector('mfrac').getBoundingClientRect())")
    assert width > 5
    assert height > 15  # a fraction stands higher than a line of letters


@pytest.mark.parametrize(("words", "expected"), [("solve_pnp", "solve_pnp"), ("label noise", "fdiv-noisy")])
def test_search_finds(tab, site: str, words: str, expected: str) -> None:
    tab.window(1280)
    tab.open(f"{site}search.html?q={words.replace(' ', '+')}")
    tab.wait("/found/i.test(document.querySelector('#search-results .search-summary')?.innerText)")
    assert expected in tab.ask("document.querySelector('#search-results').innerText").lower()


def test_no_browser_is_taken_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert load_module(BROWSER).find() is None
