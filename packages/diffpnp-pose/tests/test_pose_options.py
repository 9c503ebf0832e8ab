"""What the command line is told, and that telling it costs no import of torch."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import get_args

import pytest
from diffpnp_pose.cli import COMMANDS
from diffpnp_pose.cli.options import Decoding, Start
from diffpnp_pose.cli.recipes import NETWORK_SIZES, PoseOptions, TrainConfig
from diffpnp_pose.heatmaps.decoding import Mode
from diffpnp_pose.networks import HOURGLASS_SIZES, HRNET_SIZES
from diffpnp_pose.pnp.solve import Init
from robustvision_core.cli import parse
from robustvision_core.config import from_plain

_HELP = """
import sys
from diffpnp_pose.cli import main
try:
    main([sys.argv[1], "--help"])
except SystemExit:
    pass
heavy = {"torch", "numpy", "matplotlib", "cv2"} & set(sys.modules)
sys.stderr.write(" ".join(sorted(heavy)))
"""


def test_names_of_the_options_are_those_of_the_library() -> None:
    assert NETWORK_SIZES["hrnet"] == NETWORK_SIZES["higher_hrnet"] == tuple(HRNET_SIZES)
    assert NETWORK_SIZES["hourglass"] == tuple(HOURGLASS_SIZES)
    assert get_args(Decoding) == get_args(Mode)
    assert get_args(Start) == get_args(Init)


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_imports_nothing_heavy(verb: str) -> None:
    done = subprocess.run([sys.executable, "-c", _HELP, verb], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "usage:" in done.stdout


def test_the_second_phase_is_a_group_and_its_former_names_still_work() -> None:
    words = ["--pose-epochs", "3", "--pose-lr", "0.1", "--loss", "lp", "--solver", "epnp", "--beta", "auto"]
    former = parse(TrainConfig, [*words, "--clip-norm", "2"], "x")
    dotted = [word.replace("--", "--pose.") if word in ("--loss", "--solver", "--beta") else word for word in words]
    today = parse(TrainConfig, [*(w.replace("--pose-", "--pose.") for w in dotted), "--pose.clip-norm", "2"], "x")
    assert former == today
    assert former.pose == PoseOptions(epochs=3, lr=0.1, loss="lp", solver="epnp", beta="auto", clip_norm=2.0)


def test_a_flat_configuration_of_an_earlier_version_is_read(tmp_path: pathlib.Path) -> None:
    held = {"preset": "cpu", "loss": "lp", "solver": "bpnp", "beta": 1e-4, "pose_epochs": 2, "pose_lr": 0.0}
    read = from_plain(TrainConfig, json.loads(json.dumps(held)), str(tmp_path), "diffpnp-pose train")
    assert read.pose == PoseOptions(epochs=2, loss="lp", solver="bpnp", beta=1e-4, lr=0.0)
    assert parse(TrainConfig, ["--preset", "cpu"], "x").pose == TrainConfig.PRESETS["quick"].pose
