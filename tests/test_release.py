"""What a release needs and a commit can break: versions, licences, and floors that say what is installed."""

from __future__ import annotations

import pathlib
from types import ModuleType

import pytest
from robustvision_core.testing.modules import load_module

ROOT = pathlib.Path(__file__).resolve().parent.parent


def script(name: str) -> ModuleType:
    """A script of scripts/ as a module."""
    return load_module(ROOT / "scripts" / f"{name}.py")


def test_one_version_everywhere() -> None:
    assert script("release_check").versions() == []


def test_another_version_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    release_check = script("release_check")
    monkeypatch.setitem(release_check.MANIFESTS["fdiv-noisy"]["project"], "version", "9.9.9")
    assert release_check.versions() == ["packages/fdiv-noisy/pyproject.toml says version 9.9.9, the workspace 0.1.0"]


@pytest.mark.parametrize("package", sorted(path.name for path in (ROOT / "packages").iterdir()))
def test_every_package_states_licence_authors_and_classifiers(package: str) -> None:
    project = script("release_check").MANIFESTS[package]["project"]
    assert (ROOT / "packages" / package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert project["license-files"] == ["LICENSE"]
    assert project["authors"] == [{"name": "robustvision developers"}]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3"} <= set(project["classifiers"])
    assert project["keywords"]


def test_every_requirement_has_a_floor() -> None:
    floors = script("floors")
    for package in floors.MANIFESTS:
        assert all(">=" in line for line in floors.declared(package)), package
