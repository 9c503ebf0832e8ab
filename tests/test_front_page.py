"""The front page: its pictures are what their scripts draw, its links lead somewhere, its figures are measured ones."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import statistics
import xml.etree.ElementTree as ET

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRONT = ROOT / "docs" / "_static" / "front"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = ("fdiv_noisy", "pseudolabel_da", "flowaug", "rml_meta", "diffpnp_pose")
LARGEST = 60_000


def words(path: pathlib.Path) -> list[str]:
    """Every text of a picture, figures included."""
    return [element.text or "" for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", PICTURES)
def test_script_draws_the_committed_picture(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    importlib.import_module(f"scripts.pictures.{name}").write(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == [f"{name}-dark.svg", f"{name}.svg"]
    for file in drawn:
        assert words(FRONT / file) == words(tmp_path / file), "`make pictures` draws them anew"
        assert (FRONT / file).stat().st_size < LARGEST


def test_every_picture_is_shown_by_day_and_by_night() -> None:
    for name in PICTURES:
        assert f'srcset="docs/_static/front/{name}-dark.svg"' in README
        assert f'src="docs/_static/front/{name}.svg"' in README


@pytest.mark.parametrize("suffix", ["", "-dark"])
@pytest.mark.parametrize("name", PICTURES)
def test_words_in_pictures_stand_out(name: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """WCAG 2.1, success criterion 1.4.3: 4.5 to 1 on the ground of the page."""
    monkeypatch.syspath_prepend(str(ROOT))
    ground = importlib.import_module("benchmarks.drawing").PALETTES[suffix].ground
    texts = ET.parse(FRONT / f"{name}{suffix}.svg").iter("{http://www.w3.org/2000/svg}text")
    for colour in {element.attrib["fill"] for element in texts}:
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def slug(heading: str) -> str:
    """The anchor of a heading, as Git hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(path: pathlib.Path) -> set[str]:
    return {slug(line) for line in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)}


LINKS = sorted(set(re.findall(r'\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"', README)))


@pytest.mark.parametrize("link", ["".join(one) for one in LINKS])
def test_link_leads_somewhere(link: str) -> None:
    assert "://" not in link
    path, _, anchor = link.partition("#")
    target = ROOT / path if path else ROOT / "README.md"
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def results(name: str) -> dict:
    package, _, script = name.partition("/")
    return json.loads((ROOT / "benchmarks" / package / "results" / f"{script}.json").read_text(encoding="utf-8"))


def row(name: str, **of: object) -> dict:
    (found,) = (row for row in results(name)["rows"] if all(row[key] == value for key, value in of.items()))
    return found


def mean_shifted(method: str, colours: str) -> float:
    cells = results("rml_meta/colour")["cells"]
    return statistics.mean(cell["shifted"] for cell in cells if (cell["method"], cell["map"]) == (method, colours))


def test_figures_are_measured_ones() -> None:
    """Each sentence of the README that holds a figure, made from the JSON that it came from."""
    noise = {
        name: row("fdiv_noisy/noise_table", method=name)["r0_2 (45.3 % wrong)"].split()[0] for name in ("CE", "auto")
    }
    all_images = row("fdiv_noisy/headline", data="mnist", labels="r0_2")["auto"].split()[0]
    adapted = row("pseudolabel_da/headline", row="balanced")
    before = sorted(float(value) for value in adapted["before adaptation"].split("/"))
    flow, augerino = (row("flowaug/sprites", preset="sprites-45", augmenter=name) for name in ("flow", "augerino"))
    layer = row("diffpnp_pose/published_layer", n=9, B=24)
    own = "of each environment"
    after = adapted["target (%)"].split()[0][:4]
    sentences = [
        f"cross-entropy {float(noise['CE']):.1f} %, the loss that was found {float(noise['auto']):.1f} %; all images, "
        f"{float(all_images):.1f} %.",
        f"MNIST to MNIST-M: {before[0]:.0f} to {before[-1]:.0f} % before, {after} % after",
        f"a spread of {float(flow['spread before (degrees)'].split()[0]):.1f} degrees falls to "
        f"{float(flow['spread after alignment'].split()[0]):.1f}, where one distribution for all images leaves "
        f"{float(augerino['spread after alignment'].split()[0]):.1f}.",
        f"MAML has {mean_shifted('MAML', own):.1f} % and RML {mean_shifted('RML', own):.1f} % once the colours change; "
        f"where all share them, {mean_shifted('MAML', 'shared'):.1f} and {mean_shifted('RML', 'shared'):.1f} %",
        f"take {layer['solve_pnp']:.1f} ms on one core, the published layer {layer['published']:.0f} ms: "
        f"{layer['published / ours']:.0f} times as long",
    ]
    flat = " ".join(README.split())
    for sentence in sentences:
        assert sentence in flat


def test_the_site_shows_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    text = importlib.import_module("front_page").front(README)
    assert "<picture>" not in text
    assert text.count(":class: only-dark") == text.count(":class: only-light") == len(PICTURES)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert (ROOT / "docs" / link).exists() or link.startswith(("cli/", "map/", "reference/", "report/")), link
