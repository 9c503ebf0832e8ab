"""Try every package with the lowest versions that it declares: `make floors`.

Each wheel of dist/ is installed with its extra `train` into a fresh environment in which every declared requirement is
at its floor, or at the lowest version above it that has a wheel for that Python. There the README's examples and one
training run of seconds must pass. `--python` names the interpreters to try; by default every one of this machine that
uv or pyenv knows and the packages support.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
UV = os.environ.get("UV", "uv")
CORE = "robustvision-core"
MANIFESTS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("packages/*/pyproject.toml")}
# a version of these without a wheel for a Python is none for most users
COMPILED = ("matplotlib", "numpy", "opencv-python", "pillow", "scikit-learn", "scipy", "torch", "torchvision")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    """Try what the arguments name; the status is the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=sorted(MANIFESTS))
    parser.add_argument("--python", nargs="*", default=None)
    parser.add_argument("--newest", action="store_true", help="the newest versions instead, to try a new Python")
    arguments = parser.parse_args()
    failures = 0
    for python in arguments.python or filter(None, map(find_python, PYTHONS)):
        for package in arguments.packages:
            failures += not try_package(package, python, "highest" if arguments.newest else "lowest-direct")
    return failures


def find_python(version: str) -> str | None:
    """A Python of this version that is here already: one that uv finds, or one of pyenv's, by its path."""
    command = [UV, "python", "find", "--no-python-downloads", version]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return version
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    return next((str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python"))), None)


def declared(package: str) -> list[str]:
    """What a package with its extra `train` requires of others, the core's requirements among it."""
    names = {package, CORE} if "train" in MANIFESTS[package]["project"].get("optional-dependencies", {}) else {package}
    projects = [MANIFESTS[name]["project"] for name in names]
    found = {line for project in projects for line in project["dependencies"]}
    found |= {line for project in projects for line in project.get("optional-dependencies", {}).get("train", ())}
    return sorted(line for line in found if re.split(r"[<>=\[ ]", line)[0] not in MANIFESTS)


def try_package(package: str, python: str, resolution: str) -> bool:
    """Install `package`, run its README and a quick training; say what came out."""
    extra = "[train]" if "train" in MANIFESTS[package]["project"].get("optional-dependencies", {}) else ""
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        try:
            run([UV, "venv", "--quiet", "--python", python, "venv"], home)
            fresh = [f"--refresh-package={name}" for name in MANIFESTS]
            options = ["--quiet", "--python", "venv", "--find-links", str(ROOT / "dist"), "--resolution", resolution]
            options += [f"--only-binary={name}" for name in COMPILED]
            run([UV, "pip", "install", *options, *fresh, package + extra, *declared(package)], home)
            for example in re.findall(
                r"```python\n(.*?)```", (ROOT / "packages" / package / "README.md").read_text(), re.DOTALL
            ):
                run(["venv/bin/python", "-c", example], home)
            if extra:
                train(package, home)
        except subprocess.CalledProcessError as error:
            print(f"{package} on Python {python}, {resolution}: FAILED\n{error.stdout}{error.stderr}", flush=True)
            return False
    print(f"{package} on Python {python}, {resolution}: passed", flush=True)
    return True


def train(package: str, home: pathlib.Path) -> None:
    """A training run of seconds, and its evaluation."""
    run([f"venv/bin/{package}", "train", "--preset", "smoke", "--device", "cpu", "--out", "run"], home)
    run([f"venv/bin/{package}", "evaluate", "--run", "run", "--device", "cpu"], home)


def run(command: list[str], home: pathlib.Path) -> None:
    """Run a command outside the checkout; its failure is an error with all that it said."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment = kept | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
