"""The reproduction report: its pages are what the JSON files give, byte for byte, and it reads figures as it says."""

from __future__ import annotations

import importlib
import pathlib
import re
import statistics
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
from scipy import stats

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "report"
BENCHMARKS = ROOT / "benchmarks"
PACKAGES = ["diffpnp_pose", "fdiv_noisy", "flowaug", "pseudolabel_da", "rml_meta"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.report.figures")


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.report.claims")


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_pages_are_what_the_json_gives(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    (tmp_path / "old.md").write_text("of a claim that is no more")
    importlib.import_module("benchmarks.report").main(tmp_path)
    made, held = files(tmp_path), files(FOLDER)
    different = [name for name in sorted(made.keys() | held.keys()) if made.get(name) != held.get(name)]
    assert not different, "`make report` writes them anew"


def test_report_loads_no_torch() -> None:
    code = "import sys, benchmarks.__main__, benchmarks.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_measurement_has_its_claim(claims: ModuleType) -> None:
    for paper in claims.papers():
        used = {name for claim in paper.claims for name in claim.files}
        measured = {path.stem for path in (BENCHMARKS / paper.package / "results").glob("*.json")}
        assert measured == used, paper.package


def test_what_was_not_run_says_what_it_would_cost(claims: ModuleType) -> None:
    held = [claim for paper in claims.papers() for claim in paper.claims if claim.outcome == "not run"]
    assert held
    assert all(claim.cost or claim.figures for claim in held)
    assert not any("needs a gpu" in (claim.run + claim.note + claim.cost).lower() for claim in held)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_measured_figure_is_typed_by_hand(package: str) -> None:
    """What came out is said in words; its figures are read. What was run has its settings."""
    for claim in tomllib.loads((BENCHMARKS / package / "claims.toml").read_text(encoding="utf-8"))["claim"]:
        words = re.sub(r"\{[^{}]*\}|`[^`]*`|±90|±45", "", claim.get("note", ""))
        assert not re.search(r"\d\.\d|\d %", words), claim["claim"]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.svg")), ids=lambda path: path.stem)
def test_drawings_hold_their_words(path: pathlib.Path) -> None:
    """Nothing is drawn beyond the sheet."""
    root = ET.parse(path).getroot()
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height
        if text.attrib.get("text-anchor") == "end":
            assert float(text.attrib["x"]) >= 0.5 * float(text.attrib["font-size"]) * len(text.text or ""), text.text


ROWS = {
    "rows": [
        {"method": "ours", "accuracy": "92.23 ± 0.25", "a / b": 2.0, "deep": {"of.it": 7}},
        {"method": "rival", "accuracy": 90, "a / b": 4.0, "deep": {"of.it": 9}},
    ],
    "cells": [
        {"method": name, "seed": seed, "score": value}
        for name, values in {"ours": (0.9, 0.8, 0.95), "rival": (0.7, 0.75, 0.8)}.items()
        for seed, value in enumerate(values)
    ],
}


@pytest.fixture
def read(figures: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "read", lambda package, name: ROWS)
    return lambda **asked: figures.figure("any", {"label": "it", "file": "f", **asked})


def test_texts_and_numbers_are_read(read) -> None:
    ours = read(where={"method": "ours"}, value="accuracy", paper=90)
    assert (ours.value, ours.spread, ours.text, ours.away) == (92.23, 0.25, "92.23 ± 0.25", "+2.23")
    assert read(where={"method": "rival"}, value="accuracy").text == "90.00"
    assert read(where={"method": "rival"}, value="a / b", digits=0).text == "4"
    assert read(where={"method": "ours"}, value="deep.of.it").value == 7
    assert read(where={"deep.of.it": 9}, value="a / b", scale=100).value == 400


def test_several_are_averaged(read) -> None:
    values = [0.9, 0.8, 0.95]
    found = read(**{"in": "cells"}, where={"method": "ours"}, value="score")
    assert found.value == pytest.approx(statistics.mean(values))
    assert found.spread == pytest.approx(statistics.stdev(values))
    found = read(**{"in": "cells"}, where={"method": "ours"}, value="score", interval=True)
    low, high = stats.t.interval(0.95, 2, loc=statistics.mean(values), scale=stats.sem(values))
    assert (found.value - found.spread, found.value + found.spread) == pytest.approx((low, high))


def test_paired_differences(read) -> None:
    found = read(**{"in": "cells"}, where={"method": "ours"}, value="score", minus={"where": {"method": "rival"}})
    differences = [0.2, 0.05, 0.15]
    low, high = stats.t.interval(0.95, 2, loc=statistics.mean(differences), scale=stats.sem(differences))
    assert (found.value - found.spread, found.value + found.spread) == pytest.approx((low, high))
    assert found.interval


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"where": {"method": "none"}, "value": "accuracy"}, "nothing where"),
        ({"where": {"method": "ours"}, "value": "time"}, "no 'time'"),
        ({"where": {"method": "ours"}, "value": "method"}, "no figure"),
        ({"where": {"method": "ours"}, "value": "accuracy", "papr": 3}, "unknown papr"),
    ],
)
def test_what_no_json_holds_is_refused(read, figures: ModuleType, asked: dict, words: str) -> None:
    with pytest.raises(figures.ClaimError, match=words):
        read(**asked)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('outcome = "maybe"', "outcome"),
        ('outcome = "not run"', "no measured cost"),
        ('outcome = "reproduced"\nresult = 3', "unknown result"),
    ],
)
def test_a_claim_with_a_fault_is_refused(claims: ModuleType, entry: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        claims.paper("fdiv_noisy", f'paper = "P"\n[[claim]]\nsection = "S"\nclaim = "C"\n{entry}\n')


def test_a_note_is_filled(claims: ModuleType) -> None:
    text = 'paper = "P"\n[[claim]]\nsection = "S"\nclaim = "C"\noutcome = "reproduced"\nnote = "to {worst}"\n'
    text += 'figures = [{label = "worst", file = "battery", in = "summary", value = "worst_regret"}]'
    (claim,) = claims.paper("fdiv_noisy", text).claims
    assert claim.filled(claim.note) == f"to {claim.figures[0].text}"
    with pytest.raises(ValueError, match="no figure 'best'"):
        claim.filled("{best}")
