"""The claims of a package: ``claims.toml`` read and checked."""

from __future__ import annotations

import pathlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.report.figures import FOLDER, ClaimError, Figure, figure

OUTCOMES = ("reproduced", "in part", "not reproduced", "not run", "beside the paper")
PACKAGES = ("fdiv_noisy", "pseudolabel_da", "flowaug", "rml_meta", "diffpnp_pose")
KEYS = {"section", "claim", "says", "run", "outcome", "note", "unit", "figures", "curves", "cost", "tests", "each"}
NAMED = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper and what became of it here."""

    package: str
    section: str
    claim: str
    outcome: str
    says: str = ""
    run: str = ""
    note: str = ""
    cost: str = ""
    figures: tuple[Figure, ...] = ()
    curves: tuple[Mapping[str, Any], ...] = ()
    tests: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Its heading's name in links, as Git hosts and Sphinx make it."""
        return re.sub(r"[^\w\- ]", "", self.claim.lower()).replace(" ", "-")

    @property
    def slug(self) -> str:
        """The name of its drawings' files."""
        return re.sub(r"[^a-z0-9]+", "-", self.claim.lower()).strip("-")[:60].strip("-")

    @property
    def files(self) -> list[str]:
        """The JSON files that it draws on."""
        return sorted({one.file for one in self.figures} | {one["file"] for one in self.curves})

    def filled(self, text: str) -> str:
        """Words with `{label}` replaced by the text of that figure."""
        held = {one.label: one.text for one in self.figures}

        def put(found: re.Match[str]) -> str:
            if found[1] not in held:
                raise ClaimError(f"{self.package}, {self.claim!r}: no figure {found[1]!r}")
            return held[found[1]]

        return NAMED.sub(put, text)


@dataclass(frozen=True)
class Paper:
    """A package's page."""

    package: str
    paper: str
    about: str
    claims: tuple[Claim, ...] = field(default=())

    @property
    def dist(self) -> str:
        """The name of the distribution."""
        return self.package.replace("_", "-")


def papers(folder: pathlib.Path = FOLDER) -> list[Paper]:
    """Those of every package."""
    return [paper(package, (folder / package / "claims.toml").read_text(encoding="utf-8")) for package in PACKAGES]


def paper(package: str, text: str) -> Paper:
    """One page from the text of its `claims.toml`."""
    held = tomllib.loads(text)
    claims = tuple(_claim(package, one) for one in held["claim"])
    slugs = [one.slug for one in claims]
    if twice := {slug for slug in slugs if slugs.count(slug) > 1}:
        raise ClaimError(f"{package}: two claims are called {', '.join(twice)}")
    return Paper(package, held["paper"], held.get("about", "").strip(), claims)


def _claim(package: str, held: Mapping[str, Any]) -> Claim:
    name = f"{package}, {held.get('claim')!r}"
    if unknown := set(held) - KEYS:
        raise ClaimError(f"{name}: unknown {', '.join(sorted(unknown))}")
    if held["outcome"] not in OUTCOMES:
        raise ClaimError(f"{name}: outcome {held['outcome']!r} is none of {', '.join(OUTCOMES)}")
    asked = [_entry(held.get("each", {}), one) for one in held.get("figures", ())]
    figures = tuple(figure(package, one, held.get("unit", "")) for one in asked)
    if held["outcome"] == "not run" and not (held.get("cost") or figures):
        raise ClaimError(f"{name}: not run, and no measured cost")
    curves = held.get("curves", [])
    text = {key: " ".join(held.get(key, "").split()) for key in ("section", "claim", "says", "run", "note", "cost")}
    return Claim(
        package,
        outcome=held["outcome"],
        figures=figures,
        curves=tuple([curves] if isinstance(curves, dict) else curves),
        tests=tuple(held.get("tests", ())),
        **text,
    )


def _entry(each: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what all of its claim share; `by` names the key whose value is the entry's `name` or label."""
    asked = {**each, **one}
    key, name = asked.pop("by", None), asked.pop("name", one["label"])
    named = {} if key is None else {key: name}
    return asked | {"where": named | each.get("where", {}) | one.get("where", {})}
