"""Each wheel alone in a fresh environment: only that shows a wrong dependency range or a file left out.

``make wheels`` builds the wheels and runs this.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MANIFESTS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("packages/*/pyproject.toml")}
PINS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
CASES = [
    (name, extra)
    for name, manifest in MANIFESTS.items()
    for extra in ("", "[train]")
    if not extra or extra[1:-1] in manifest["project"].get("optional-dependencies", {})
]

pytestmark = pytest.mark.wheels


class Environment:
    """A fresh virtual environment with one wheel in it."""

    def __init__(self, folder: pathlib.Path, requirement: str) -> None:
        self.bin = folder / "venv" / "bin"
        self.folder = folder
        uv = str(pathlib.Path(os.environ.get("UV", ROOT / ".uv/bin/uv")).absolute())
        pins = folder / "pins.txt"
        pins.write_text("\n".join(PINS))
        self.run(uv, "venv", "--quiet", "venv")
        # uv caches a found wheel by folder and version: an earlier build there would be installed without a refresh
        fresh = [f"--refresh-package={name}" for name in MANIFESTS]
        # the pins keep the test from depending on today's newest versions
        options = ["--quiet", "--python", "venv", "--find-links", str(DIST), "-c", str(pins), *fresh]
        self.run(uv, "pip", "install", *options, requirement)

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, outside the checkout, and expect an exit status."""
        environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        return done

    def python(self, code: str) -> str:
        """What ``python -c code`` prints; warnings are errors, but for torch's own when there is no NumPy."""
        flags = ["-W", "error", "-W", "ignore:Failed to initialize NumPy"]
        return self.run(str(self.bin / "python"), *flags, "-c", code).stdout


TRAINED = {"flowaug": ["--data", "digits", "--train-size", "200"]}  # sprites are drawn first, which takes longer
ASK = {"rml-meta": ["--support", "support"], "diffpnp-pose": ["--camera", "camera.json"]}

IMAGES = """
from PIL import Image
import pathlib
for name, shade in (("dark", 20), ("light", 220)):
    for folder in ("support/" + name, "new"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        for n in range(2):
            Image.new("RGB", (60 + 9 * n, 50), (shade + n,) * 3).save(f"{folder}/{name}{n}.png")
pathlib.Path("new/broken.png").write_bytes(b"no image")
pathlib.Path("camera.json").write_text('{"K": [[60, 0, 30], [0, 60, 25], [0, 0, 1]]}')
"""


def train_and_predict(script: str, environment: Environment) -> None:
    """A run of a few seconds, and what it makes of new images, one of them broken."""
    program = str(environment.bin / script)
    if "predict" not in environment.run(program, "--help").stdout:
        pytest.fail(f"{script} has no verb predict")
    smoke = ["--preset", "smoke", "--device", "cpu", "--no-progress", "--out", "run", *TRAINED.get(script, [])]
    environment.run(program, "train", *smoke)
    environment.python(IMAGES)
    said = environment.run(program, "predict", "--run", "run", "--images", "new", "--out", "out", *ASK.get(script, []))
    assert "broken.png" in said.stdout + said.stderr
    rows = (environment.folder / "out" / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("file,")
    assert sum(".png" in row for row in rows) >= 4


@pytest.fixture(params=CASES, ids=["".join(case) for case in CASES])
def installed(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[str, str, Environment]:
    name, extra = request.param
    if not list(DIST.glob(f"{name.replace('-', '_')}-*.whl")):
        pytest.fail(f"no wheel of {name} in {DIST}: run make wheels")
    return name, extra, Environment(tmp_path, name + extra)


def test_wheel_installs_imports_and_helps(installed: tuple[str, str, Environment]) -> None:
    name, extra, environment = installed
    module = name.replace("-", "_")
    manifest = MANIFESTS[name]["project"]
    assert environment.python(f"import {module}; print({module}.__version__)").strip() == manifest["version"]
    packages = environment.python(
        "import importlib.metadata as m; print(*[d.metadata['Name'] for d in m.distributions()])"
    )
    if not extra and name != "robustvision-core":
        assert "torchvision" not in packages.split()
        assert "robustvision-core" not in packages.split()
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "packages" / name / "README.md").read_text(), re.DOTALL):
        environment.python(example)
    for script in manifest.get("scripts", {}):
        assert f"usage: {script}" in environment.run(str(environment.bin / script), "--help").stdout
        assert f"usage: {script}" in environment.run(str(environment.bin / "python"), "-m", module, "--help").stdout
        if extra:
            assert "--seed" in environment.run(str(environment.bin / script), "train", "--help").stdout
            train_and_predict(script, environment)
        else:
            refused = environment.run(str(environment.bin / script), "train", status=2).stderr
            assert f'pip install "{name}[train]"' in refused
            assert refused.count("\n") == 1
