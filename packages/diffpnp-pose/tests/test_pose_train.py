"""The entry point, whole: train, resume, evaluate, bad input, two processes."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from diffpnp_pose.cli import _without_extra, main
from diffpnp_pose.cli.inference import make_network
from diffpnp_pose.cli.recipes import NETWORK_SIZES, TrainConfig
from diffpnp_pose.cli.scoring import EIGHT
from diffpnp_pose.cli.train import train
from robustvision_core.data import load_poses
from robustvision_core.run.folder import load_checkpoint, read_config, read_metrics
from robustvision_core.run.runtime import Runtime

TINY = replace(
    TrainConfig.PRESETS["smoke"],
    size="64x48",
    network_size="micro",
    train_size=16,
    val_size=4,
    test_size=6,
    epochs=1,
    device="cpu",
    progress=False,
)
OPTIONS = ["--preset", "smoke", "--size", "64x48", "--network-size", "micro", "--device", "cpu"]
SMALL = [*OPTIONS, "--train-size", "16", "--val-size", "4", "--test-size", "6", "--epochs", "1"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data root, in which rendered images are kept."""
    return str(tmp_path_factory.mktemp("data"))


def test_train_writes_a_run_that_evaluate_reads(
    tmp_path: pathlib.Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--data", "synthetic", *SMALL, "--epochs", "2", "--data-root", cache, "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    pictures = {f"plots/{name}.png" for name in ("training", "heatmaps", "poses", "distance")}
    assert files == pictures | {"config.json", "metrics.jsonl", "summary.json", "checkpoint.pt", "best.pt"}
    summary = json.loads((out / "summary.json").read_text())
    best = min(read_metrics(out), key=lambda record: record["val_npe"])
    assert summary["selected"]["epoch"] == best["epoch"]
    assert summary["final"]["samples"] == 6
    assert read_config(out, TrainConfig, "diffpnp-pose train").data == "drones"
    evaluated = ["evaluate", "--run", str(out), "--data-root", cache, "--out", str(tmp_path / "seen")]
    assert main(evaluated) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:8]] == list(EIGHT)
    assert lines[:9] == printed.splitlines()[1:10]
    assert float(lines[1].split()[1]) == pytest.approx(summary["selected"]["AD"], abs=5e-5)
    for name in ("heatmaps", "poses", "distance"):
        assert (tmp_path / "seen" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--loss", "lh", "--val-size", "0"],
        ["--loss", "lp", "--solver", "bpnp"],
        ["--loss", "lm", "--solver", "bpnp-fast", "--beta", "auto", "--border-corrected", "True"],
        ["--loss", "lm", "--solver", "epnp", "--clip-norm", "1e-4"],
        ["--network", "higher_hrnet", "--drone", "tello", "--distance", "0.4", "0.6"],
        ["--network", "hourglass", "--network-size", "tiny"],
    ],
    ids=" ".join,
)
def test_every_part_trains(arguments: list[str], tmp_path: pathlib.Path, cache: str) -> None:
    out = str(tmp_path / "run")
    small = ["--train-size", "8", "--batch-size", "4", "--test-size", "2", "--data-root", cache]
    assert main(["train", *SMALL, *small, *arguments, "--out", out]) == 0
    if "--val-size" not in arguments:
        assert (tmp_path / "run" / "best.pt").exists()
    else:
        assert main(["evaluate", "--run", out, "--which", "checkpoint", "--data-root", cache]) == 0


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["step"]


def without_advice(errors: str) -> list[str]:
    """The lines but the one that says that objects in images of this size are too small."""
    return [line for line in errors.splitlines() if "too small to be seen well" not in line]


def test_ctrl_c_saves_exits_130_and_resume_is_exact(tmp_path: pathlib.Path, cache: str) -> None:
    arguments = ["train", *SMALL, "--data-root", cache, "--loss", "lm", "--beta", "auto", "--batch-size", "4"]
    arguments += ["--epochs", "2", "--pose-epochs", "10", "--val-size", "0"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "diffpnp_pose", *arguments, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "cut" / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    (said,) = without_advice(errors)
    assert said.startswith(f"diffpnp-pose: stopped; the run is in {tmp_path / 'cut'}, go on with: diffpnp-pose train")
    assert 2 < load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["progress"]["epoch"] < 12
    assert main([*arguments, "--out", str(tmp_path / "cut"), "--resume", "True"]) == 0
    expected, actual = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert float(expected["mixture.beta"]) != TINY.pose.beta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "dronez"], "unknown pose set 'dronez': did you mean 'drones'?"),
        (["--data", "lmo", "--data-root", "/no/such"], "lmo: found no lmo/test or lmo*.zip"),
        (["--network-size", "w49"], "unknown size of hrnet 'w49': did you mean 'w48'?"),
        (["--network", "hourglass"], "unknown size of hourglass 'micro'"),
        (["--size", "65x48"], "width and height must be multiples of 4"),
        (["--size", "huge"], "size is 'huge', expected tiny, small, WxH"),
        (["--distance", "0.7", "0.5"], "expected 0.4 <= near <= far"),
        (["--epochs", "-1"], "epochs must be 0 or more, got -1"),
        (["--epochs", "0", "--pose-epochs", "0"], "there is nothing to train"),
        (["--network", "higher_hrnet", "--loss", "lp"], "higher_hrnet cannot train on lp"),
        (["--beta", "0"], "beta must be positive or auto, got 0"),
        (["--lr", "0"], "lr must be positive"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--resume", "True", "--out", ""], "--resume needs --out"),
        (["--init", "/no/such.pt"], "no checkpoint at /no/such.pt"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: pathlib.Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["train", *SMALL, "--data-root", cache, "--out", str(tmp_path / "run"), *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    (said,) = without_advice(errors)
    assert message in said
    assert not (tmp_path / "run").exists()


def test_evaluate_and_resume_refuse_what_is_no_such_run(tmp_path: pathlib.Path, cache: str, capsys) -> None:
    assert main(["evaluate", "--run", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    out = tmp_path / "run"
    arguments = ["train", *SMALL, "--data-root", cache, "--pose-epochs", "0", "--val-size", "0", "--out", str(out)]
    assert main(arguments) == 0
    assert main(["evaluate", "--run", str(out), "--data-root", cache]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(out), "--solver", "epnq", "--data-root", cache]) == 2
    assert "did you mean 'epnp'?" in capsys.readouterr().err
    taken = str(out / "config.json")
    assert main(["evaluate", "--run", str(out), "--which", "checkpoint", "--out", taken, "--data-root", cache]) == 2
    assert f"{taken} cannot be written: File exists" in capsys.readouterr().err
    assert main(["demo", "--out", taken, "--data-root", cache]) == 2
    assert f"{taken} cannot be written: File exists" in capsys.readouterr().err
    assert main([*arguments, "--lr", "0.5", "--resume", "True"]) == 2
    assert "lr is 0.003 there and 0.5 here" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    (out / "config.json").write_text('{"weather": 1}')
    assert main(["evaluate", "--run", str(out)]) == 2
    assert "it has weather" in capsys.readouterr().err


def train_on_rank(runtime: Runtime, folder: str, cache: str) -> list[dict]:
    train(replace(TINY, data_root=cache, out=folder, batch_size=4))
    return read_metrics(folder)


def test_two_processes_train_one_run(two_ranks, tmp_path: pathlib.Path, cache: str) -> None:
    first, second = two_ranks(train_on_rank, str(tmp_path / "run"), cache)
    assert first == second
    assert [record["epoch"] for record in first] == [1, 2]
    assert len(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["rng"]) == 2
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["final"]["samples"] == 6


def test_demo_prints_its_table(tmp_path: pathlib.Path, cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--train-size", "32", "--test-size", "4", "--epochs", "1", "--pose-epochs", "1", "--device", "cpu"]
    assert main(["demo", *small, "--data-root", cache, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[2:6]] == ["position error", "angle", "ADD5", "Proj2"]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "demo.png", "poses_lh.png", "poses_lp.png", "predictions.png"
    }  # fmt: skip
    assert lines[-1].endswith(str(tmp_path / "plots" / "predictions.png"))


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_presets_are_named_after_themselves_and_can_be_built(name: str) -> None:
    preset = TrainConfig.PRESETS[name]
    assert preset.preset == ("quick" if name == "cpu" else name)
    assert preset.val_size > 0
    poses = load_poses("drones", "train", count=1, size="64x48", cache=False)
    with torch.device("meta"):
        assert sum(p.numel() for p in make_network(preset, poses).parameters()) > 0


def test_every_network_size_is_offered() -> None:
    poses = load_poses("drones", "train", count=1, size="64x48", cache=False)
    with torch.device("meta"):
        for network, sizes in NETWORK_SIZES.items():
            for size in sizes:
                make_network(replace(TINY, network=network, network_size=size), poses)  # type: ignore[arg-type]


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["train"], 2)])
def test_without_the_extra_the_hint_names_it(arguments: list[str], status: int, capsys) -> None:
    assert _without_extra(arguments) == status
    output = capsys.readouterr()
    assert 'pip install "diffpnp-pose[train]"' in output.out + output.err


@pytest.mark.parametrize("option", ["--epochs", "--pose-epochs", "--train-size", "--test-size"])
def test_demo_refuses_its_options_before_it_trains(option: str, tmp_path: pathlib.Path, capsys) -> None:
    assert main(["demo", option, "0", "--data-root", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"{option[2:].replace('-', '_')} must be at least 1, got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
