from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from robustvision_core.data import ImageSet, Query, data_root, load, load_domains, load_poses, names, register
from robustvision_core.data.registry.domain_pairs import DOMAIN_PAIRS
from robustvision_core.data.registry.image_sets import IMAGE_SETS
from robustvision_core.data.registry.pose_sets import POSE_SETS
from robustvision_core.data.registry.table import Registry
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
    monkeypatch.setattr(IMAGE_SETS, "table", dict(IMAGE_SETS.table))

    @register("dots", "one dot", splits=("all",))
    def load_dots(query: Query, value: int = 1) -> ImageSet:
        return ImageSet(torch.full((1, 1, 1, 1), value).byte(), torch.zeros(1).long(), ("dot",), name=query.title)

    data = load("dots", "all", value=7)
    assert data.images.item() == 7
    assert data.name == "dots/all"
    with pytest.raises(ValueError, match="two data sets are called 'dots'"):
        register("dots", "again")(load_dots)


ROWS = [(table, name) for table in (IMAGE_SETS, DOMAIN_PAIRS, POSE_SETS) for name in table.table]


@pytest.mark.parametrize(("table", "name"), ROWS, ids=[name for _, name in ROWS])
def test_every_row_names_a_function_and_its_options(table: Registry[Any], name: str) -> None:
    source = table.source(name)
    said = re.search("options? ([a-z_, ]+)$", source.about)
    assert source.options() == (said[1].split(", ") if said else [])
    assert source.loader().__doc__


PLUGIN = """
import torch
from robustvision_core.data import DomainPair, ImageSet, Source

def load_dots(query, value=1):
    "One dot."
    return ImageSet(torch.full((4, 1, 1, 1), value).byte(), torch.zeros(4).long(), ("dot",), name=query.title)

def load_kept(query):
    return load_dots(query, int(query.path))

def load_pair(query):
    return DomainPair(*[load_dots(query)] * 6, name=query.name)

kept = Source("a dot of a given value", load_kept, ("all",), takes_path=True)
pair = Source("dots to dots", load_pair, ("pair",))
number = 3
"""
POINTS = """
[robustvision.data]
dots = dots_plugin:load_dots
kept = dots_plugin:kept
digits = dots_plugin:load_dots
broken = dots_plugin:nothing
absent = no_such_module:load
number = dots_plugin:number

[robustvision.domains]
dots-dots = dots_plugin:pair
"""


@pytest.fixture
def plugin(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An installed distribution, as pip leaves one, that adds data sets."""
    (tmp_path / "dots_plugin.py").write_text(PLUGIN)
    info = tmp_path / "my_dots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-dots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("dots_plugin", None)


@pytest.mark.usefixtures("plugin")
def test_an_installed_distribution_adds_names() -> None:
    assert names()["dots"] == "added by my-dots"
    assert "dots_plugin" not in sys.modules  # listed without being imported
    assert load("dots", "test", value=7).images.flatten().tolist() == [7] * 4
    assert load("kept:9", "all").images.flatten().tolist() == [9] * 4
    assert load("digits").num_classes == 10  # a built-in name stays what it is
    pair = load_domains("dots-dots")
    assert pair.name == "dots-dots"
    assert len(pair.target_test) == 4


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dots", {"split": "val"}, "unknown split of dots 'val'.*known: test, train"),
        ("dots", {"valu": 8}, "unknown option of dots 'valu': did you mean 'value'"),
        ("dots:here", {}, "data set 'dots:here' is written dots"),
        ("kept", {"split": "all"}, "data set 'kept' is written kept:PATH"),
        ("dot", {}, "unknown data set 'dot': did you mean 'dots'"),
        ("broken", {}, "data set 'broken', added by my-dots, cannot be imported: AttributeError"),
        ("absent", {}, "data set 'absent', added by my-dots, cannot be imported: ModuleNotFoundError.*no_such_module"),
        ("number", {}, "data set 'number', added by my-dots, is a int: expected a Source or a function"),
    ],
)
def test_mistakes_of_distributions_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name, **options)  # type: ignore[arg-type]


def test_two_distributions_with_one_name(plugin: pathlib.Path) -> None:
    info = plugin / "your_dots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: your-dots\nVersion: 1.0\n")
    for distribution in ("my_dots", "your_dots"):
        points = "[robustvision.poses]\ndots = dots_plugin:kept\n"
        (plugin / f"{distribution}-1.0.dist-info" / "entry_points.txt").write_text(points)
    with pytest.raises(UserError, match=r"pose set 'dots' is added by (my|your)-dots and by (my|your)-dots"):
        load_poses("dots")


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
        "heavy = ('sklearn', 'scipy', 'torchvision', 'PIL', 'matplotlib', 'tqdm'); loaded = set(sys.modules) - before; "
        "print([m for m in loaded if m in heavy or m.startswith('robustvision_core.data.' + 'sources')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
