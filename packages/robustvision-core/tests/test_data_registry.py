from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
import torch
from robustvision_core.data import ImageSet, data_root, load, names, register
from robustvision_core.data import registry as registry_module
from robustvision_core.errors import UserError
from torch.nn import functional


def test_names_are_described_in_one_line() -> None:
    listed = names()
    assert {"digits", "mnist", "fashion-mnist"} <= listed.keys()
    assert all(about and "\n" not in about for about in listed.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fashion", {}, "unknown data set 'fashion': did you mean 'fashion-mnist'"),
        ("digits", {"split": "val"}, "unknown split of digits 'val'.*known: test, train"),
        ("digits", {"sise": 8}, "unknown option of digits 'sise': did you mean 'size'"),
        ("digits:here", {}, "data set 'digits:here' is written digits"),
        ("digits", {"size": 0}, "digits: size is 0"),
    ],
)
def test_unknown_things_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name, **options)  # type: ignore[arg-type]


def test_root_is_argument_then_variable_then_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("ROBUSTVISION_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path) == tmp_path
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("ROBUSTVISION_DATA")
    assert data_root() == pathlib.Path.home() / ".cache" / "robustvision"


def test_a_new_source_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    names()
    monkeypatch.setattr(registry_module, "_SOURCES", dict(registry_module._SOURCES))

    @register("dots", "one dot", splits=("all",))
    def load_dots(query: registry_module.Query, value: int = 1) -> ImageSet:
        return ImageSet(torch.full((1, 1, 1, 1), value).byte(), torch.zeros(1).long(), ("dot",), name=query.title)

    data = load("dots", "all", value=7)
    assert data.images.item() == 7
    assert data.name == "dots/all"
    with pytest.raises(ValueError, match="two data sets are called 'dots'"):
        register("dots", "again")(load_dots)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    train, test = load("digits"), load("digits", "test")
    assert len(train) == 1442
    assert len(test) == sum((labels == digit).sum() // 5 for digit in range(10)) == 355
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(1797))
    for part in (train, test):
        assert torch.equal(part.labels, torch.from_numpy(labels)[part.ids])
        expected = torch.from_numpy(pixels).reshape(-1, 1, 8, 8)[part.ids]
        torch.testing.assert_close(part.images.double() / 255, expected / 16, rtol=0, atol=0.5 / 255 + 1e-9)
    assert (test.class_counts() / train.class_counts() - 0.25).abs().max() < 0.02


def test_digits_resized() -> None:
    small, large = load("digits", "test"), load("digits", "test", size=28)
    assert large.shape == (1, 28, 28)
    expected = functional.interpolate(small.images.double(), size=28, mode="bilinear")
    assert (large.images.double() - expected).abs().max() <= 1.01  # both are rounded, one before and one after


def test_import_is_light() -> None:
    code = (
        "import sys, torch, numpy; before = set(sys.modules); from robustvision_core.data import names; names(); "
        "heavy = ('sklearn', 'scipy', 'torchvision', 'PIL', 'matplotlib', 'tqdm'); "
        "print([m for m in heavy if m in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
