"""Options: the names they list, the help that must not wait for torch, and former spellings."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import replace

import pytest
from fdiv_noisy.cli import COMMANDS, criteria, main, names
from fdiv_noisy.cli.recipes import Optimizer, TrainConfig
from fdiv_noisy.divergences import DIVERGENCES
from fdiv_noisy.networks import NETWORKS
from fdiv_noisy.noise import presets
from robustvision_core.cli import parse
from robustvision_core.config import from_plain, plain


def test_names_are_those_of_the_library() -> None:
    assert tuple(DIVERGENCES) == names.DIVERGENCES
    assert names.LEVELS == presets.LEVELS
    made = {"auto", "pair-conditional", *DIVERGENCES, *criteria.PLAIN, *criteria.CORRECTED}
    assert set(names.LOSSES) == made
    assert len(names.LOSSES) == len(made)
    assert tuple(NETWORKS) == names.NETWORKS


def test_every_name_stands_in_the_help() -> None:
    from fdiv_noisy.cli import recipes

    source = pathlib.Path(recipes.__file__).read_text(encoding="utf-8")
    helps = source[source.index("preset: str") :]
    for name in (*names.LOSSES, *names.NETWORKS, *TrainConfig.PRESETS):
        assert name in helps


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_leaves_torch_out(verb: str) -> None:
    code = (
        "import sys; from fdiv_noisy.cli import main\n"
        f"try: main([*{verb.split()!r}, '--help'])\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--data-root" in done.stdout or verb in ("demo", "predict", "export", "compare")


@pytest.mark.parametrize("words", ["--optimizer sgd --lr 0.1", "--optimizer.name=sgd --optimizer-lr=0.1"])
def test_optimizer_options_in_both_spellings(words: str) -> None:
    config = parse(TrainConfig, [*words.split(), "--momentum", "0.5"], "fdiv-noisy train")
    assert config.optimizer == replace(TrainConfig.PRESETS["quick"].optimizer, name="sgd", lr=0.1, momentum=0.5)


def test_a_configuration_with_flat_optimizer_fields_is_read() -> None:
    config = replace(TrainConfig.PRESETS["cifar10-paper"], seed=3)
    held = plain(config)
    flat = held.pop("optimizer")
    held |= {"optimizer": flat.pop("name"), **flat}
    assert from_plain(TrainConfig, json.loads(json.dumps(held)), "config.json", "fdiv-noisy train") == config
    assert config.optimizer != Optimizer()


def test_smoke_preset_trains(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "smoke", "--device", "cpu", "--no-progress", "--out", str(tmp_path / "r")]) == 0
    assert "clean test accuracy" in capsys.readouterr().out
    assert main(["evaluate", "--run", str(tmp_path / "r"), "--device", "cpu"]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "r"), "--which", "bst"]) == 2
    assert "did you mean 'best'?" in capsys.readouterr().err
