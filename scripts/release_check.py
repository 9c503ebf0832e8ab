"""What must hold before a release: `make release-check`, after it has built every archive into dist/.

One version everywhere, the licence in every archive, metadata that an index accepts, and tests that pass from the
unpacked source archives.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
UV = os.environ.get("UV", "uv")
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "scipy", "kornia")
MANIFESTS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("packages/*/pyproject.toml")}


def main() -> int:
    """Check all; the status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-tests", action="store_true", help="leave out the tests of the source archives")
    arguments = parser.parse_args()
    problems = [*versions(), *archives(), *metadata()]
    if not problems and not arguments.skip_tests:
        problems = source_tests()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(MANIFESTS)} packages, {len(problems)} problems")
    return bool(problems)


def versions() -> list[str]:
    """Where a version differs from that of the workspace."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    stated = {f"packages/{name}/pyproject.toml": manifest["project"]["version"] for name, manifest in MANIFESTS.items()}
    for path in ROOT.glob("packages/*/src/*/__init__.py"):
        stated[str(path.relative_to(ROOT))] = found(r'__version__ = "(.*)"', path.read_text())
    stated["CITATION.cff"] = found(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text())
    return [
        f"{where} says version {held}, the workspace {version}" for where, held in stated.items() if held != version
    ]


def found(pattern: str, text: str) -> str:
    """What the pattern's group holds, or nothing."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def archives() -> list[str]:
    """Archives that are missing, or lack the licence, the types or, of a source archive, the tests."""
    problems = []
    for name in MANIFESTS:
        module = name.replace("-", "_")
        wheels, sources = sorted(DIST.glob(f"{module}-*.whl")), sorted(DIST.glob(f"{module}-*.tar.gz"))
        if len(wheels) != 1 or len(sources) != 1:
            problems.append(f"{name}: expected one wheel and one source archive in dist")
            continue
        held = zipfile.ZipFile(wheels[0]).namelist()
        with tarfile.open(sources[0]) as packed:
            source = packed.getnames()
        for wanted, names in (
            ("licenses/LICENSE", held),
            ("py.typed", held),
            ("/LICENSE", source),
            ("/tests/", source),
        ):
            if not any(wanted in path for path in names):
                problems.append(f"{name}: no {wanted} in its {'wheel' if names is held else 'source archive'}")
    return problems


def metadata() -> list[str]:
    """What twine finds wrong."""
    files = [str(path) for path in sorted(DIST.iterdir()) if path.suffix in (".whl", ".gz")]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [done.stdout + done.stderr]


def source_tests() -> list[str]:
    """Packages whose tests fail from their unpacked source archive, in an environment that knows no checkout."""
    pins = "\n".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"])
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        (home / "pins.txt").write_text(pins)
        run([UV, "venv", "--quiet", "venv"], home)
        install = [UV, "pip", "install", "--quiet", "--python", "venv", "--find-links", str(DIST), "-c", "pins.txt"]
        fresh = [f"--refresh-package={name}" for name in MANIFESTS]
        extras = [f"{name}[train]" for name in MANIFESTS if "train" in extras_of(name)]
        run([*install, *fresh, *extras, *TEST_TOOLS], home)
        for name in sorted(MANIFESTS):
            (archive,) = DIST.glob(f"{name.replace('-', '_')}-*.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(home, filter="data")
            done = run(
                [str(home / "venv/bin/python"), "-m", "pytest", "-q", "-n", "2"], home / archive.name[:-7], check=False
            )
            print(f"{name}: {done.stdout.strip().splitlines()[-1]}", flush=True)
            if done.returncode:
                problems.append(f"{name}: tests of the source archive fail\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return problems


def extras_of(name: str) -> dict[str, list[str]]:
    """The optional dependencies of a package."""
    return MANIFESTS[name]["project"].get("optional-dependencies", {})


def run(command: list[str], home: pathlib.Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return subprocess.run(command, cwd=home, env=kept, capture_output=True, text=True, check=check)


if __name__ == "__main__":
    sys.exit(main())
