"""Options of the commands: light to read, grouped, and readable under their former names."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest
from flowaug import networks
from flowaug.cli import COMMANDS, main
from flowaug.cli.recipes import NETWORKS, TrainConfig
from robustvision_core.cli import parse
from robustvision_core.config import from_plain, leaf_types, plain

FORMER = {"degrees": 30.0, "image_size": 16, "train_size": 70, "space": "affine", "layers": 3, "start_scale": 0.2}
FORMER |= {"alpha": 0.7, "controller": "band", "optimizer": "sgd", "lr_steps": [[0.5, 0.1]], "network": "mlp"}


def test_names_of_networks_are_those_of_the_library() -> None:
    assert set(NETWORKS) == set(networks.NETWORKS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_is_light(verb: str) -> None:
    """Half a second of the processor at most, and no torch."""
    code = f"""
import sys, time
started = time.process_time()
from flowaug.cli import main
try:
    main([{verb!r}, "--help"])
except SystemExit:
    pass
sys.stderr.write(f"{{time.process_time() - started}} {{'torch' in sys.modules}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch_is_loaded = done.stderr.split()
    assert torch_is_loaded == "False"
    assert float(seconds) < 1.5  # a third of that on an idle machine
    assert "--out" in done.stdout


def test_options_stand_in_titled_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for group in ("images", "space", "flow", "objective", "controller", "optimizer"):
        assert f"{group} options" in shown
    assert "--flow.layers" in shown


def test_a_configuration_of_before_is_read() -> None:
    config = from_plain(TrainConfig, FORMER, "config.json", "flowaug train")
    assert config == TrainConfig().changed(**(FORMER | {"lr_steps": ((0.5, 0.1),)}))
    assert config.images.size == 16
    assert config.controller.kind == "band"
    assert from_plain(TrainConfig, json.loads(json.dumps(plain(config))), "", "") == config


def test_every_former_option_is_still_understood() -> None:
    assert set(TrainConfig.ALIASES.values()) <= leaf_types(TrainConfig).keys()
    words = [word for name, value in FORMER.items() if name != "lr_steps" for word in (f"--{name}", str(value))]
    config = parse(TrainConfig, words, "flowaug train")
    assert config == TrainConfig.PRESETS["quick"].changed(**{k: v for k, v in FORMER.items() if k != "lr_steps"})


def test_data_options_of_a_preset_hold_for_its_data_alone() -> None:
    own = parse(TrainConfig, ["--preset", "sprites-45"], "").settled().images
    assert (own.degrees, own.size, own.train_size) == (45, 16, 4000)
    assert parse(TrainConfig, ["--preset", "sprites-45", "--degrees", "20"], "").settled().images.degrees == 20
    other = parse(TrainConfig, ["--preset", "sprites-45", "--data", "digits"], "").settled().images
    assert (other.degrees, other.size, other.train_size) == (None, None, 0)
    kept = parse(TrainConfig, ["--preset", "sprites-45", "--data", "mnist-01569", "--degrees", "45"], "")
    assert kept.settled().images.degrees == 45


def test_runs_of_before_keep_their_phase(tmp_path: pathlib.Path) -> None:
    """Their configuration names none: it is read as linear, and a resumed run goes on with it."""
    assert TrainConfig.PRESETS["quick"].flow.phase == "atan2"
    assert all(config.flow.phase == "atan2" for config in TrainConfig.PRESETS.values())
    assert from_plain(TrainConfig, FORMER, "config.json", "flowaug train").flow.phase == "linear"
    resumed = TrainConfig.PRESETS["quick"].changed(resume=True, out=str(tmp_path))
    for held, phase in (({"alpha": 1.0}, "linear"), ({"flow": {}}, "linear"), ({"flow": {"phase": "atan2"}}, "atan2")):
        (tmp_path / "config.json").write_text(json.dumps(held))
        assert resumed.as_begun().flow.phase == phase
    (tmp_path / "config.json").write_text("[]")
    assert resumed.as_begun() == resumed


def test_smoke_is_over_in_seconds(tmp_path: pathlib.Path) -> None:
    started = time.process_time()
    assert main(["train", "--preset", "smoke", "--device", "cpu", "--no-progress", "--out", str(tmp_path)]) == 0
    assert time.process_time() - started < 20
    assert json.loads((tmp_path / "config.json").read_text())["images"]["train_size"] == 64
