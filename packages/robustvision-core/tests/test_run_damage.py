"""Damaged and foreign files of a run, and file systems that refuse: one line that names the file, and nothing lost."""

from __future__ import annotations

import errno
import json
import pathlib
import resource
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.run import Run, RunOptions, load_checkpoint, load_part, read_config, save_checkpoint
from robustvision_core.run.files import check_space
from test_loop import CONFIG, Step, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(Run(folder, CONFIG), epochs=1)
    return folder


def copy(trained: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    for file in trained.iterdir():
        if not file.name.startswith("."):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def load_changed(path: pathlib.Path, whole: bytes, place: int) -> dict[str, Any] | str:
    """The state, or the complaint, with one bit changed."""
    changed = bytearray(whole)
    changed[place] ^= 0x40
    path.write_bytes(changed)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        return str(error)


def test_every_flipped_bit_is_noticed_or_harmless(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = copy(trained, tmp_path / "run") / "checkpoint.pt"
    whole, expected = path.read_bytes(), load_checkpoint(path)
    found = [load_changed(path, whole, place) for place in range(0, len(whole), 97)]
    complaints = [one for one in found if isinstance(one, str)]
    assert len(complaints) > len(found) / 2
    assert all(one.startswith(str(path)) and ("best.pt" in one or "holds more than" in one) for one in complaints)
    for state in found:
        if not isinstance(state, str):  # the change hit the padding between the parts
            assert all(torch.equal(state["step"][name], value) for name, value in expected["step"].items())
    with zipfile.ZipFile(trained / "checkpoint.pt") as archive:
        (part,) = [name for name in archive.namelist() if name.endswith("data/0")]
        at = whole.find(archive.read(part))
    path.write_bytes(whole[:at] + b"\x7f" + whole[at + 1 :])
    with pytest.raises(CheckpointError, match=rf"checkpoint.pt is damaged: its part {part} is not what was written"):
        load_part(nn_like(), path)


def test_damaged_selected_weights_do_not_offer_themselves(trained: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = copy(trained, tmp_path / "run") / "best.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at = whole.find(archive.read(next(name for name in archive.namelist() if name.endswith("data/0"))))
    complaint = load_changed(path, whole, at)
    assert isinstance(complaint, str)
    assert "delete it, or restore a whole copy" in complaint
    assert "--which best" not in complaint


def nn_like() -> torch.nn.Module:
    return Step().network


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no step": lambda s: s.pop("step"),
    "no optimizer": lambda s: s.pop("optimizer"),
    "no rng": lambda s: s.pop("rng"),
    "no config": lambda s: s.pop("config"),
    "a config of text": lambda s: s.update(config="x"),
    "step of another network": lambda s: s.update(step={"a": torch.zeros(1)}),
    "step of numbers": lambda s: s.update(step=dict.fromkeys(s["step"], 1)),
    "step of text": lambda s: s.update(step="weights"),
    "an unknown progress": lambda s: s["progress"].update(foo=1),
    "progress of text": lambda s: s["progress"].update(epoch="one"),
    "progress below zero": lambda s: s["progress"].update(batch=-1),
    "rng of another kind": lambda s: s["rng"][0].update(torch=torch.zeros(3)),
    "rng without torch": lambda s: s["rng"][0].pop("torch"),
    "optimizer of another network": lambda s: s["optimizer"]["param_groups"][0]["params"].pop(),
    "scheduler of text": lambda s: s.update(scheduler="constant"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_that_is_not_of_this_run(trained: pathlib.Path, tmp_path: pathlib.Path, change: str) -> None:
    folder = copy(trained, tmp_path / "run")
    state = load_checkpoint(folder / "checkpoint.pt")
    CHANGES[change](state)
    save_checkpoint(folder / "checkpoint.pt", state)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt ") as refused:
        train(Run(folder, CONFIG, resume=True), epochs=2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("weights", [3, {"network.0.weight": 3}, {3: 4}, {"network.a": torch.zeros(1)}, None])
def test_weights_that_are_not_ours(tmp_path: pathlib.Path, weights: object) -> None:
    save_checkpoint(tmp_path / "best.pt", {"step": weights})
    with pytest.raises(CheckpointError, match=r"best\.pt holds (no|another) network"):
        load_part(nn_like(), tmp_path / "best.pt")


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, '{"seed": 1e', '"\ud800'.encode("utf-8", "surrogatepass")]
)
def test_a_configuration_that_is_no_json(tmp_path: pathlib.Path, text: str | bytes) -> None:
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=r"config\.json is no JSON"):
        read_config(tmp_path, RunOptions, "a test")


@pytest.mark.parametrize(
    "held",
    [{"seed": None}, {"seed": 10**30}, {"seed": 2**63}, {"seed": [1]}, {"seed": {"a": 1}}, {"devices": 0}, {"ou": ""}],
)
def test_a_configuration_with_values_that_are_not_ours(tmp_path: pathlib.Path, held: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path, RunOptions, "a test")
    with pytest.raises(UserError, match=r"(seed must be a whole number of 64 bits|devices must be)"):
        RunOptions(**({"seed": 10**30} | ({"devices": 0} if "devices" in held else {})))


@pytest.mark.parametrize("signal_space", [4_000, 60_000])
def test_a_file_that_may_not_grow_keeps_the_last_checkpoint(tmp_path: pathlib.Path, signal_space: int) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.ones(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (signal_space, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            save_checkpoint(path, {"a": torch.zeros(100_000), "b": torch.zeros(100_000)})
        with pytest.raises(OSError, match="File too large: a checkpoint needs 100,000 bytes, a file may have"):
            check_space(tmp_path, 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.filename == str(path)
    assert refused.value.errno == errno.EFBIG
    assert torch.equal(load_checkpoint(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_too_small_a_disk_is_known_before_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: a checkpoint needs 1,000,000,000,000,000,000 bytes"):
        check_space(tmp_path, 10**18)
    check_space(tmp_path, 1000)


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(OSError, match="/proc/none") as refused:
        Run("/proc/none/run", CONFIG)
    assert refused.value.strerror
