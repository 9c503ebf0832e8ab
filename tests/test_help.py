"""The help of every verb answers at once: it loads neither torch nor anything else that is heavy."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.parent.parent.name for path in ROOT.glob("packages/*/src/*/cli/__init__.py"))
COMMANDS.remove("robustvision_core")

ASK = """
import contextlib, importlib, io, json, sys
package = sys.argv[1]
cli = importlib.import_module(f"{package}.cli")
answers = {}
for verb in cli.COMMANDS:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            status = cli.main([*verb.split(), "--help"])
        except SystemExit as stopped:
            status = stopped.code
    heavy = [name for name in ("torch", "numpy", "matplotlib", "PIL", "sklearn", "scipy") if name in sys.modules]
    answers[verb] = [status, heavy, said.getvalue()]
for about, *targets in cli.COMMANDS.values():  # all that the table names is there
    assert about and "\\n" not in about
    for module, name in (target.split(":") for target in targets):
        getattr(importlib.import_module(module, f"{package}.cli"), name)
print(json.dumps(answers))
"""


@pytest.mark.parametrize("package", COMMANDS)
def test_help_of_every_verb_is_light(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK, package], capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout)
    assert {"train", "evaluate"} <= answers.keys()
    for verb, (status, heavy, text) in answers.items():
        assert status in (0, None), verb
        assert not heavy, f"{package} {verb} --help loads {heavy}"
        assert text.startswith(f"usage: {package.replace('_', '-')} {verb}"), text[:200]
