"""One algorithm: the library and the command, given the same settings, data and seed, do the same, bit for bit."""

from __future__ import annotations

import inspect
import pathlib
import subprocess
import sys
from dataclasses import fields
from typing import Any, get_args

import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.algorithm.presets import PRESETS
from pseudolabel_da.algorithm.schedule import rate_factor, schedule_epoch
from pseudolabel_da.algorithm.settings import AugmentName, SelectionOptions, TrainingOptions
from pseudolabel_da.cli import COMMANDS, main
from pseudolabel_da.cli import data as pairs
from pseudolabel_da.cli.data import deal, load_pair
from pseudolabel_da.cli.recipes import NETWORKS as NAMES
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.networks import NETWORKS, SmallCNN
from pseudolabel_da.reading.augments import AUGMENTS
from robustvision_core.run.folder import load_checkpoint, read_metrics

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")
SIZES: dict[str, Any] = {"batch_size": 16, "period": 2, "lr": 3e-3}
RUN: dict[str, Any] = {"source_size": 200, "target_size": 90, "image_size": 16, "pretrain": 4, "epochs": 5}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"rho": 0.05},
    "official": {"rho": 0.05},
    "balanced": {},
    "paper, everything else": {
        "rho": 0.05,
        "source_augment": "jitter",
        "augment": "recolor",
        "calibrate": True,
        "anneal": True,
        "oversample": "replacement",
        "checkpoint": "im",
    },
    "balanced, dann": {"method": "dann", "checkpoint": "snd"},
    "balanced, coral": {"method": "coral", "coral_weight": 2.0},
    "balanced, lee": {"method": "lee", "lee_final": 1.0},
    "balanced, ican": {"method": "ican", "rho": 0.05, "passes": "mixed"},
}


def option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name.replace('_', '-')}", str(value)]


@quiet
@pytest.mark.parametrize("name", RECIPES)
def test_library_and_command_give_the_same_bits(name: str, tmp_path: pathlib.Path, monkeypatch) -> None:
    recipe, changes = name.split(",")[0], SIZES | RECIPES[name]
    pair = load_pair(TrainConfig.PRESETS["quick"].changed(image_size=16))
    monkeypatch.setattr(pairs, "load_pair", lambda config: pair)
    words = [word for key, value in (RUN | changes).items() for word in option(key, value)]
    out = tmp_path / "run"
    arguments = ["train", "--preset", recipe, "--data", "digits-shift", *words, "--device", "cpu", "--no-progress"]
    assert main([*arguments, "--out", str(out)]) == 0

    data = deal(TrainConfig.PRESETS[recipe].changed(data="digits-shift", **RUN), pair)
    torch.manual_seed(0)
    network = SmallCNN(3, 16, 10).to(memory_format=torch.channels_last)
    labeler = getattr(pl.IncrementalPseudoLabeler, recipe)(network, **changes)
    labeler.pretrain(data.labelled, None, epochs=RUN["pretrain"])
    result = labeler.fit(data.labelled, data.val, data.target, epochs=RUN["epochs"], target_labels=data.truth)

    which = "checkpoint.pt" if labeler.settings.validator == "last" else "best.pt"
    step = load_checkpoint(out / which)["step"]
    for key, value in labeler.model.state_dict().items():
        assert torch.equal(value, step[f"objective.model.{key}"]), key
    state = load_checkpoint(out / "checkpoint.pt")["step"]["_extra_state"]
    assert labeler.pool is not None
    for key, value in labeler.pool.state_dict().items():
        assert torch.equal(value, state["pool"][key]), key
    assert [record.as_dict() for record in labeler.periods] == state["periods"]
    assert "method" in changes or result.rows.numel() > 0
    records = read_metrics(out)[RUN["pretrain"] :]
    assert [record.get("loss") for record in records] == [epoch["loss"] for epoch in result.epochs]
    if which == "best.pt":
        assert [record["score"] for record in records] == [epoch["score"] for epoch in result.epochs]


def test_every_option_of_the_algorithm_is_in_the_library_by_its_name() -> None:
    library = {field.name for field in fields(pl.Settings)}
    for group in (SelectionOptions, TrainingOptions):
        assert {field.name for field in fields(group)} <= library
    assert {"method", "checkpoint", "coral", "lee", "seed"} <= library
    for name in ("paper", "official", "balanced"):
        made = getattr(pl.IncrementalPseudoLabeler, name)(SmallCNN())
        assert made.settings == PRESETS[name]
        assert TrainConfig.PRESETS[name].settings().changed(checkpoint=made.settings.checkpoint) == PRESETS[name]
    assert {"augment", "source_augment", "selector", "period"} <= set(inspect.signature(type(made)).parameters)


def test_a_network_is_found_by_features_and_head_or_refused() -> None:
    with pytest.raises(ValueError, match="method dann needs a model with features"):
        pl.IncrementalPseudoLabeler(torch.nn.Linear(3, 2), method="dann")
    with pytest.raises(TypeError, match="coral_wait"):
        pl.IncrementalPseudoLabeler(torch.nn.Linear(3, 2), coral_wait=3)
    with pytest.raises(ValueError, match="selector must be one of adaptive"):
        pl.IncrementalPseudoLabeler(torch.nn.Linear(3, 2), selector="best")


def test_the_rate_falls_within_each_phase_and_period() -> None:
    settings = pl.Settings(anneal=True, period=2)
    rates = [rate_factor(schedule_epoch(settings, epoch, 2, 4), settings, 0.5) for epoch in range(6)]
    quarter, three = (1 + 2**-0.5) / 2, (1 - 2**-0.5) / 2
    assert rates == pytest.approx([quarter, three] * 3)
    assert rate_factor(schedule_epoch(settings, 5, 2, 4), settings, 0.999) == 0.02
    assert rate_factor(schedule_epoch(pl.Settings(), 5, 2, 4), pl.Settings(), 0.9) == 1.0


def test_the_plan_of_each_epoch() -> None:
    settings = pl.Settings(period=2, batch_norm="target", checkpoint="im")
    plans = [schedule_epoch(settings, epoch, 1, 3) for epoch in range(4)]
    assert [plan.selects for plan in plans] == [False, True, False, True]
    assert [plan.pool for plan in plans] == ["none", "labelled", "labelled", "labelled"]
    assert [plan.begins for plan in plans] == [False, True, False, False]
    assert [plan.smoothing for plan in plans] == [0.05, 0.15, 0.15, 0.15]
    assert [plan.scores for plan in plans] == [plan.estimates for plan in plans] == [False, True, True, True]
    assert schedule_epoch(settings, 1, 1, 3, stopped=True)[3:5] == (False, "none")
    assert schedule_epoch(pl.Settings(method="coral"), 1, 1, 3)[3:5] == (False, "all")


def test_names_in_the_options_are_those_of_the_library() -> None:
    assert set(NAMES) == set(NETWORKS)
    assert set(get_args(AugmentName)) == {*AUGMENTS, "auto"}


HELP = """
import sys
from pseudolabel_da.cli import main
try:
    main([*{verb!r}.split(), "--help"])
except SystemExit:
    pass
heavy = {{"torch", "torchvision", "numpy", "scipy", "matplotlib", "PIL"}} & set(sys.modules)
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_loads_nothing_heavy(verb: str) -> None:
    code = HELP.format(verb=verb)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
