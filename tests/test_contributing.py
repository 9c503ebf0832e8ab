"""The worked examples of CONTRIBUTING.md, put into a copy of the packages and run there."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add something")[2]
BLOCK = r"\s*```python\n(.*?)```"
NEW = re.compile(rf"New file `([^`]+)`:{BLOCK}", re.DOTALL)
BEFORE = re.compile(rf"In `([^`]+)`, before `([^`]+)`:{BLOCK}", re.DOTALL)
LINE = re.compile(rf"In `([^`]+__init__\.pyi)`[^`]*:{BLOCK}", re.DOTALL)
BECOMES = re.compile(r"[Ii]n `([^`]+)`, `([^`]+)` becomes `([^`]+)`")

USE = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
from fdiv_noisy import DIVERGENCES, FDivergenceLoss
from fdiv_noisy.cli.recipes import LOSSES

le_cam = DIVERGENCES["le_cam"]
v = torch.linspace(1e-4, 60, 600_001, dtype=torch.float64)
for u in (-2.0, -0.5, 0.0, 0.4, 0.8):
    least = le_cam.conjugate(torch.tensor(u, dtype=torch.float64))
    assert abs((u * v - le_cam.f(v)).max() - least) < 1e-6, u
p = torch.linspace(0, 1, 11, dtype=torch.float64)
torch.testing.assert_close(le_cam.conjugate_g(p), le_cam.conjugate(le_cam.g(p)))
logits = torch.zeros(3, 3, requires_grad=True)
labels = torch.arange(3)
FDivergenceLoss("le_cam", product="exact")(logits, labels).backward()
assert (logits.grad.gather(1, labels[:, None]) < 0).all() and "le_cam" in LOSSES

from pseudolabel_da import IncrementalPseudoLabeler, MarginThreshold
chosen = MarginThreshold(0.3).select(torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]))
assert chosen.mask.tolist() == [True, False]
x, y = torch.randn(60, 4), torch.arange(60) % 3
x = x / 4 + torch.nn.functional.one_hot(y, 4) * 3
options = {"period": 1, "lr": 0.05, "transform": lambda x: x}
labeler = IncrementalPseudoLabeler(torch.nn.Linear(4, 3), MarginThreshold(0.1), **options)
labeler.pretrain((x, y), (x, y), epochs=10)
assert labeler.fit((x, y), (x, y), x, epochs=1).periods[0].selected > 30

from rml_meta import Episode, NearestImage, evaluate_episodes
method = NearestImage(torch.nn.Flatten())
support, query = torch.eye(5).expand(3, 5, 5), torch.eye(5).expand(3, 5, 5) + 0.1
labels = torch.arange(5).expand(3, 5)
assert evaluate_episodes(method, [Episode(support[i], labels[i], query[i], labels[i]) for i in range(3)]).mean == 1

from flowaug import AugmentedClassifier, FlowAugmenter, GammaSpace
images = torch.rand(2, 3, 16, 16)
torch.testing.assert_close(GammaSpace().warp(images, torch.zeros(2, 1, 1))[:, 0], images)
classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))
model = AugmentedClassifier(classifier, FlowAugmenter(GammaSpace()))
model.loss(images, torch.tensor([0, 1]), alpha=0.1).total.backward()
assert any(parameter.grad is not None for parameter in model.augmenter.parameters())

from robustvision_core.data import load, names
assert "stripes" in names() and load("stripes", "test", count=6).images.shape == (6, 1, 8, 8)
print("all five work")
"""


def add_all(packages: pathlib.Path) -> int:
    """Do what the page says to the packages in a folder; returns the number of changes."""

    def at(path: str) -> pathlib.Path:
        return packages.parent / path

    made = 0
    for path, code in NEW.findall(TEXT):
        assert not at(path).exists(), f"{path} is there already"
        at(path).write_text(code, encoding="utf-8")
        made += 1
    for path, anchor, code in BEFORE.findall(TEXT):
        text = at(path).read_text(encoding="utf-8")
        assert text.count(anchor) == 1, f"{path} has no single {anchor!r}"
        at(path).write_text(text.replace(anchor, code + anchor), encoding="utf-8")
        made += 1
    for path, old, new in BECOMES.findall(TEXT):
        text = at(path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has no single {old!r}"
        at(path).write_text(text.replace(old, new), encoding="utf-8")
        made += 1
    for path, code in LINE.findall(TEXT):
        assert code.count("\n") == 1
        at(path).write_text(code + at(path).read_text(encoding="utf-8"), encoding="utf-8")
        made += 1
    return made


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    for source in ROOT.glob("packages/*/src"):
        target = tmp_path / source.relative_to(ROOT)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "packages"


def test_examples_work_as_written(copy: pathlib.Path) -> None:
    # four new files, three public names, a divergence and its two names, a set that is registered
    assert add_all(copy) == 11
    path = os.pathsep.join(map(str, sorted(copy.glob("*/src"))))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all five work" in done.stdout
    style = [
        str(pathlib.Path(sys.executable).with_name("ruff")),
        "check",
        "--quiet",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    new = [str(copy.parent / path) for path, _ in NEW.findall(TEXT)]
    checked = subprocess.run([*style, *new], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
