"""Noisy sets as options describe them: noise by name, splits of folders, label files and the commands on them."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.cli import main
from fdiv_noisy.cli.data import PUBLISHED, _model, load, noisy_labels
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.estimation.doubts import other_rates, wrong_by_typicality
from fdiv_noisy.noise import corrupt, load_labels
from fdiv_noisy.noise.presets import LEVELS
from fdiv_noisy.transition import as_matrix
from PIL import Image
from robustvision_core.data import ImageSet
from robustvision_core.errors import DataError, UserError

QUICK = TrainConfig.PRESETS["quick"]


def clean_set(classes: int, name: str = "x") -> ImageSet:
    labels = torch.arange(classes).repeat(30)
    return ImageSet(torch.zeros(len(labels), 1, 4, 4).byte(), labels, tuple(map(str, range(classes))), name=name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [*PUBLISHED, "digits"])
def test_every_level_is_there_for_every_set_it_was_published_for(name: str, level: str) -> None:
    classes = 100 if name == "cifar-100" else 10
    if name == "cifar-100" and not level.startswith("random"):
        with pytest.raises(ValueError, match="random-low and random-high only"):
            _model(level, "", name, classes)
        return
    assert as_matrix(_model(level, "", name, classes)).shape == (classes, classes)


def test_cifar_has_noise_of_its_own_under_both_spellings() -> None:
    rates = {
        name: 1 - float(as_matrix(noise.preset("uniform-high", name)).diag().mean()) for name in ("cifar-10", "cifar10")
    }
    assert rates["cifar-10"] == rates["cifar10"] == pytest.approx(0.531, abs=1e-3)
    assert 1 - float(as_matrix(_model("uniform-high", "", "cifar-10", 10)).diag().mean()) == rates["cifar-10"]


@pytest.mark.parametrize(
    ("classes", "spec", "message"),
    [
        (3, "sparse-high", "this level is of 10 classes, and x has 3"),
        (1, "uniform:0.4", "has one class"),
        (10, "none:0.2", "none takes no argument"),
        (10, "instance", "it needs a rate, as in instance:0.4"),
        (10, "asymmetric:0.3", "between classes of cifar-10, not of x"),
        (10, "uniform:nan", "--noise uniform:nan"),
    ],
)
def test_noise_that_does_not_fit_is_refused(classes: int, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        noisy_labels(replace(QUICK, data="x", noise=spec), clean_set(classes))


@pytest.mark.parametrize(
    ("name", "spec", "drawn"),
    [
        ("mnist", "published:r0_2", "or use --noise sparse-high, the same model drawn here"),
        ("cifar-100", "published:r0_4", "or use --noise random-high, the same model"),
        ("cifar-100", "published:r0_1", "see the README\\)$"),
    ],
)
def test_a_missing_published_file_names_what_can_be_drawn(name: str, spec: str, drawn: str) -> None:
    with pytest.raises(DataError, match=drawn):
        noisy_labels(replace(QUICK, data=name, noise=spec, data_root="/no/such"), clean_set(10))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.1, 0.3, 0.9, 1.0])
def test_instance_noise_has_the_rate_it_is_asked_for(rate: float) -> None:
    labels = torch.arange(4).repeat(25_000)
    features = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    noisy = noise.instance_dependent(features, labels, rate, 4, generator=torch.Generator().manual_seed(1))
    # five standard deviations of a share of 100,000
    assert float((noisy != labels).double().mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 1e5) ** 0.5)


def make_folder(top: pathlib.Path, classes: int = 3, each: int = 20) -> str:
    for split in ("train", "test"):
        for c in range(classes):
            (top / split / f"c{c}").mkdir(parents=True)
            for i in range(each):
                Image.new("L", (16, 16), c * 40 + i).save(top / split / f"c{c}" / f"{i:02}.png")
    return f"folder:{top}"


@pytest.mark.parametrize("spec", ["none", "uniform:0.3"])
def test_parts_of_a_folder_have_every_class(spec: str, tmp_path: pathlib.Path) -> None:
    config = replace(QUICK, data=make_folder(tmp_path), noise=spec, image_size=16, val_size=15, train_size=30)
    noisy, plain = load(config), load(replace(config, noise="none"))
    train, val = plain.in_memory(), plain.val
    assert isinstance(val, ImageSet)
    assert val.class_counts().tolist() == [5, 5, 5]
    assert train.class_counts().tolist() == [10, 10, 10]
    # the same images under every noise, and none in both parts
    assert torch.equal(noisy.in_memory().images, train.images)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not seen & {image.numpy().tobytes() for image in val.images}
    if spec == "none":
        assert noisy.clean is None
    else:
        assert noisy.clean is not None
        assert torch.equal(noisy.clean, plain.train.labels)
        assert 0.05 < (noisy.wrong_labels or 0.0) < 0.7


def test_make_and_inspect_have_the_labels_that_train_has(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "labels.pt"
    assert main(["noise", "make", "--noise", "instance:0.3", "--out", str(out)]) == 0
    assert torch.equal(load_labels(out), load(replace(QUICK, noise="instance:0.3")).train.labels)
    capsys.readouterr()
    wrong = float((load_labels(out) != load_labels(out, "clean_label_train")).double().mean())
    assert main(["noise", "inspect", "--noise", "instance:0.3"]) == 0
    assert f"wrong labels: {wrong:.2%}" in capsys.readouterr().out


def test_estimate_prints_its_doubts_and_draws_them(tmp_path: pathlib.Path, capsys) -> None:
    picture = tmp_path / "noise.png"
    command = ["estimate", "--noise", "uniform:0.4", "--plot", str(picture), "--device", "cpu", "--no-progress"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "uniform noise" in said
    for name in ("anchor points", "confident joint", "dual-T", "label floors"):
        rate = float(said.split(f"{name} ")[1].split("%")[0])
        assert 25 < rate < 80
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_typical_samples_tell_overlap_from_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean_probs = (3 * torch.randn(4000, 5, generator=generator)).softmax(1)
    clean = torch.multinomial(clean_probs, 1, generator=generator)[:, 0]
    even = torch.eye(5) * 0.7 + 0.06
    overlap = wrong_by_typicality(clean_probs, clean)
    noise_too = wrong_by_typicality(clean_probs @ even, corrupt(clean, even, generator=generator))
    assert overlap[0] < 0.03
    assert overlap == sorted(overlap)
    assert noise_too[0] == pytest.approx(0.24, abs=0.16)  # of 40 samples: two standard errors and more
    assert noise_too[2] > 0.15 > overlap[2]
    rates = other_rates(clean_probs, clean)
    assert rates["label floors"] < 0.03 < rates["confident joint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["noise", "make", "--noise", "uniform:0.4", "--out", "{}/labels.npy"], "written as .pt or .pth"),
        (["noise", "make", "--noise", "uniform:0.4", "--out", "{}/taken/labels.pt"], "cannot be written"),
        (["estimate", "--train-size", "5"], "the labels of digits cannot be judged"),
        (["evaluate", "--run", "{}/broken"], "is no JSON"),
        (["train", "--loss", "ce", "--out", "{}/taken"], "is a file: give a folder"),
    ],
)
def test_bad_paths_and_sizes_are_one_line(arguments: list[str], message: str, tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"loss": ')
    assert main([word.format(tmp_path) for word in arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
