"""The examples of the READMEs run as printed, and the commands that they name exist."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]
RUN = """
import pathlib, re, sys, torch
torch.set_num_threads(1)
path = pathlib.Path(sys.argv[1])
for number, block in enumerate(re.findall(r"```python\\n(.*?)```", path.read_text(), re.DOTALL)):
    torch.manual_seed(0)
    exec(compile(block, f"{path.parent.name}, example {number}", "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_examples_run(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert "```python" in path.read_text()
    command = [sys.executable, "-W", "error", "-c", RUN, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_of_the_readmes_exist() -> None:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"make ([a-z-]+)", path.read_text()):
            if name in ("are", "is"):
                continue
            assert name in targets or any(name.startswith(t[:-1]) for t in targets if t.endswith("%")), name


def test_makefile_targets_have_help() -> None:
    text = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^([a-z%-]+):(?!=)", text, re.MULTILINE):
        assert re.search(rf"^{re.escape(name)}:.*## ", text, re.MULTILINE) or name == "clean", name


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_no_registry_or_home_path(path: pathlib.Path) -> None:
    assert not re.search(r"https?://\S*(pypi|/simple)|/(root|work|home)/", path.read_text())
