"""Options: groups, former names, and a help that answers at once."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import typing

import pytest
from rml_meta.adaptation import Backend
from rml_meta.cli import COMMANDS, learners, main, recipes
from rml_meta.cli.recipes import METHODS, TrainConfig
from rml_meta.methods.maml import LearnRate
from rml_meta.methods.robust import Alignment, Pairing, Penalty
from rml_meta.networks import BACKBONES
from rml_meta.networks.layers import Norm
from robustvision_core.cli import parse
from robustvision_core.config import from_plain, leaf_types, plain
from robustvision_core.errors import UserError


def test_choices_are_those_of_the_library() -> None:
    choices = {name: typing.get_args(kind) for name, kind in leaf_types(TrainConfig).items()}
    assert {*recipes.NETWORKS, "conv4_maps"} == set(BACKBONES)
    assert choices["norm"] == typing.get_args(Norm)
    assert choices["inner.backend"] == typing.get_args(Backend)
    assert choices["inner.learn_lr"] == typing.get_args(LearnRate)
    assert choices["rml.pairing"] == typing.get_args(Pairing)
    assert choices["rml.class_alignment"] == typing.get_args(Alignment)
    assert choices["rml.penalty"] == ("none", *typing.get_args(Penalty))
    assert set(METHODS) == set(learners.MAKERS)
    assert set(recipes.METRIC_METHODS) < set(METHODS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_leaves_torch_alone(verb: str) -> None:
    code = f"import sys; from rml_meta.cli import main\ntry: main([{verb!r}, '--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert f"usage: rml-meta {verb}" in done.stdout


def test_help_of_train_groups_options_by_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"], "rml-meta train")
    text = capsys.readouterr().out
    titles = ["image", "environments", "test", "inner", "rml", "reptile", "metalstm", "metric", "baseline"]
    assert [title for title in titles if f" {title} options " in text] == titles
    assert "Methods that compare embeddings: matchingnet, protonet and relationnet." in text


def test_former_spellings() -> None:
    words = "--backbone conv6 --inner-steps 3 --test-inner-steps 4 --environments none --pairing diagonal"
    former = parse(TrainConfig, [*words.split(), "--augment", "True", "--first-order", "False"], "rml-meta train")
    words = "--network conv6 --inner.steps 3 --inner.test-steps 4 --environments.train none --rml.pairing diagonal"
    today = parse(TrainConfig, [*words.split(), "--image.augment", "--no-first-order"], "rml-meta train")
    assert former == today
    expected = {"network": "conv6", "inner_steps": 3, "test_inner_steps": 4, "environments": "none"}
    assert today == TrainConfig.PRESETS["quick"].changed(**expected, pairing="diagonal", augment=True)


def test_configurations_written_under_former_names() -> None:
    held = {"method": "maml", "backbone": "conv6", "inner_lr": 0.5, "image_batch": 7, "test_correlations": [0.2, 0.3]}
    config = from_plain(TrainConfig, held | {"environments": "none", "transductive": False}, "here", "rml-meta train")
    assert (config.network, config.inner.lr, config.baseline.batch, config.test.transductive) == (
        "conv6",
        0.5,
        7,
        False,
    )
    assert (config.environments.train, config.environments.test_correlations) == ("none", (0.2, 0.3))


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_presets_survive_their_own_file(name: str) -> None:
    preset = TrainConfig.PRESETS[name]
    assert from_plain(TrainConfig, plain(preset), "here", "rml-meta train") == preset


def test_change_of_a_configuration_is_checked() -> None:
    with pytest.raises(UserError, match=r"inner\.steps must be at least 1, got 0"):
        TrainConfig().changed(inner_steps=0)
    with pytest.raises(UserError, match="inner_stpes"):
        TrainConfig().changed(inner_stpes=1)


def test_smoke(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "smoke", "--out", str(tmp_path / "run"), "--device", "cpu", "--no-progress"]) == 0
    assert "novel classes: " in capsys.readouterr().out
