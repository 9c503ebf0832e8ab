"""The public names of each package: a name that goes, or comes unseen, breaks somebody's program."""

from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "tests" / "public_api.txt"
LIBRARIES = ["diffpnp_pose", "fdiv_noisy", "flowaug", "pseudolabel_da", "rml_meta"]


def test_inventory() -> None:
    found = [f"{package}.{name}" for package in LIBRARIES for name in sorted(importlib.import_module(package).__all__)]
    assert found == INVENTORY.read_text().split(), "write the new names into tests/public_api.txt if they are meant"


@pytest.mark.parametrize("package", LIBRARIES)
def test_every_name_exists_and_type_checkers_see_the_same(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"
        assert name in dir(module)
    with pytest.raises(AttributeError, match=f"No {package} attribute nonsense"):
        _ = module.nonsense
    stub = ast.parse(pathlib.Path(str(module.__file__)).with_suffix(".pyi").read_text())
    imported = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(module.__all__)


LOADED = """
import sys
{before}
before = set(sys.modules)
import {package}
{use}
print(*{{name.split(".")[0] for name in set(sys.modules) - before}})
"""


@pytest.mark.parametrize("package", LIBRARIES)
def test_import_is_instant_and_use_loads_torch_only(package: str) -> None:
    use = "\n".join(f"{package}.{name}" for name in importlib.import_module(package).__all__)
    for before, used, banned in (
        ("", "", {"torch", "numpy"}),
        ("import torch", use, {"torchvision", "scipy", "numpy", "robustvision_core"}),
    ):
        code = LOADED.format(before=before, package=package, use=used)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not banned & set(done.stdout.split())


@pytest.mark.parametrize("package", sorted(path.name for path in ROOT.glob("packages/*/src/*") if path.is_dir()))
def test_packages_do_not_import_each_other(package: str) -> None:
    others = {path.name for path in ROOT.glob("packages/*/src/*")} - {package, "robustvision_core"}
    (folder,) = ROOT.glob(f"packages/*/src/{package}")
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            assert not roots & others, f"{path} imports {roots & others}"
