"""The entry point, whole: train, resume, evaluate, diagnose, bad input, two processes."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pseudolabel_da.algorithm.fetching import StepBatch
from pseudolabel_da.algorithm.settings import VALIDATORS
from pseudolabel_da.algorithm.steps import selector_of
from pseudolabel_da.cli import data as pairs
from pseudolabel_da.cli import main
from pseudolabel_da.cli.data import deal, load_pair
from pseudolabel_da.cli.demo import DemoConfig, demo
from pseudolabel_da.cli.phases import PRETRAINING, Phases
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import Step, make_step
from pseudolabel_da.cli.testing import make_classifier
from pseudolabel_da.cli.train import fit_on
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord
from robustvision_core.data import DomainPair
from robustvision_core.run.folder import load_checkpoint, read_metrics
from robustvision_core.run.runtime import Runtime
from torch import nn

SIZES = ["--source-size", "96", "--target-size", "96", "--image-size", "16", "--batch-size", "16", "--device", "cpu"]
SMALL = ["train", *SIZES, "--pretrain", "2", "--epochs", "3", "--period", "1", "--shares", "0.5", "0.8"]
# as in the paper, but for a threshold that a network trained for seconds can reach
PAPER = ["--selector", "fixed", "--threshold", "0.15", "--label-smoothing", "0.15", "--passes", "separate"]
PAPER += ["--relabel", "False", "--batch-norm", "shared", "--augment", "none", "--oversample", "clip"]


@functools.lru_cache
def small_pair() -> DomainPair:
    """Digits of 16 pixels, read once."""
    return load_pair(TrainConfig.PRESETS["quick"].changed(image_size=16))


@pytest.fixture
def _one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get the pair that is in memory."""
    monkeypatch.setattr(pairs, "load_pair", lambda config: small_pair())


def small(**changes) -> TrainConfig:
    quick = TrainConfig.PRESETS["quick"]
    sizes = {"source_size": 96, "target_size": 96, "image_size": 16, "batch_size": 16, "pretrain": 2, "epochs": 3}
    return quick.changed(device="cpu", progress=False, **sizes | {"period": 1} | changes)


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    step = load_checkpoint(folder / "checkpoint.pt")["step"]
    return {name: value for name, value in step.items() if isinstance(value, torch.Tensor)}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_presets_are_named_after_themselves_and_valid(name: str) -> None:
    config = TrainConfig.PRESETS[name]
    assert config.preset == name
    assert config.settings().period == config.selection.period
    assert selector_of(config.settings())


@pytest.mark.usefixtures("_one_pair")
def test_train_writes_a_run_that_evaluate_and_diagnose_read(tmp_path: pathlib.Path, capsys) -> None:
    out = str(tmp_path / "run")
    assert main([*SMALL, "--select", "im", "--out", out]) == 0
    assert "accuracy on the target" in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in pathlib.Path(out).rglob("*") if path.is_file()}
    pictures = {f"plots/{name}.png" for name in ("training", "periods")}
    pictures |= {f"plots/confusion_{name}.png" for name in ("source", "target", "start")}
    tables = {"config.json", "metrics.jsonl", "summary.json", "pseudo_labels.csv"}
    assert files == pictures | tables | {"checkpoint.pt", "best.pt"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [record["epoch"] for record in summary["periods"]] == [0, 1, 2]
    assert all(record["wrong"] is not None for record in summary["periods"])
    assert 0 <= summary["start"] <= 1
    records = read_metrics(out)
    assert [record["score"] == PRETRAINING for record in records] == [True, True, False, False, False]
    best = max(records, key=lambda record: record["score"])
    assert summary["selected"]["epoch"] == best["epoch"]
    for which, part in (("checkpoint", summary["final"]), ("best", summary["selected"])):
        assert main(["evaluate", "--run", out, "--which", which, "--out", str(tmp_path / "c.png")]) == 0
        last = capsys.readouterr().out.splitlines()[-1].split()
        assert last == ["accuracy", *(f"{100 * part[name]['accuracy']:.2f}" for name in ("source", "target"))]
        assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert main(["diagnose", "--run", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["epoch", "0", "1", "2"]
    assert [int(line.split()[1]) for line in lines[1:4]] == [record["selected"] for record in summary["periods"]]


@pytest.mark.usefixtures("_one_pair")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--method", "source"],
        ["--method", "target"],
        ["--method", "source", "--labelled", "2", "--source-augment", "recolor"],
        ["--method", "coral", "--coral-features", "penultimate", "--coral-form", "published"],
        ["--method", "dann", "--passes", "mixed"],
        ["--method", "lee", "--source-augment", "jitter"],
        ["--method", "ican", "--rho", "0.2", "--passes", "mixed", "--batch-norm", "shared"],
        ["--selector", "fixed", "--threshold", "0.2"],
        ["--selector", "flex", "--threshold", "0.2", "--calibrate", "True"],
        ["--selector", "top", "--on-collapse", "rebalance"],
        ["--selector", "balanced", "--prior", "predicted", "--batch-norm", "freeze_on_pseudo"],
        ["--selector", "balanced", "--prior", "1,1,1,1,1,1,1,1,1,3"],
        ["--selector", "balanced", "--prior", "estimate"],
        [*PAPER, "--order", "official", "--select", "source", "--labelled", "0.1"],
        [*PAPER, "--replay", "always_labeled_target", "--labelled", "0.1", "--select", "snd"],
        [*PAPER, "--selector", "adaptive", "--rho", "9", "--on-empty", "source_epoch", "--select", "entropy"],
    ],
    ids=lambda arguments: "-".join(arguments[:4]),
)
def test_every_method_and_selector_trains(arguments: list[str], tmp_path: pathlib.Path) -> None:
    run = [*SMALL, "--pretrain", "1", "--epochs", "2", "--out", str(tmp_path / "run")]
    assert main([*run, *arguments]) == 0
    assert main(["diagnose", "--run", str(tmp_path / "run")]) == 0
    records = read_metrics(tmp_path / "run")
    assert len(records) == (1 if arguments[1] in ("source", "target") else 3)


@pytest.mark.usefixtures("_one_pair")
def test_a_stalled_run_says_so(tmp_path: pathlib.Path, capsys) -> None:
    assert main([*SMALL, *PAPER, "--selector", "adaptive", "--rho", "9", "--out", str(tmp_path / "run")]) == 0
    warned = capsys.readouterr().err.splitlines()
    assert warned
    assert all(line.startswith("pseudolabel-da: warning: period ") for line in warned)
    assert main(["diagnose", "--run", str(tmp_path / "run")]) == 0
    assert "hyper-conservative: next to nothing is selected" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["verdict"] == "hyper_conservative"
    assert [("loss" in record) for record in read_metrics(tmp_path / "run")] == [True, True, False, False, False]


METHODS = {
    "recipe": ["--anneal", "True", "--replay-share", "0.5"],
    "paper": [*PAPER, "--source-augment", "jitter"],
    "official": [*PAPER, "--order", "official", "--period", "2"],
    "dann": ["--method", "dann", "--batch-norm", "shared"],
}


@pytest.mark.usefixtures("_one_pair")
@pytest.mark.parametrize("method", METHODS)
def test_resume_is_bit_exact_within_an_epoch_and_between_epochs(
    method: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    arguments = [*SMALL, *METHODS[method], "--select", "im"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    epoch_of, stop_at = Phases.epoch, [(0, 1), (2, 0), (2, -1), (3, 0)]  # -1: the last batch, an epoch's end

    def stopping(self: Phases, epoch: int, start: int = 0) -> Iterator[StepBatch]:
        for number, batch in enumerate(epoch_of(self, epoch, start), start):
            if stop_at and stop_at[0] in ((epoch, number), (epoch, number - len(self))):
                stop_at.pop(0)
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(Phases, "epoch", stopping)
    arguments += ["--out", str(tmp_path / "cut")]
    assert main(arguments) == 130
    while stop_at:
        assert main([*arguments, "--resume", "True"]) == 130
    assert main([*arguments, "--resume", "True"]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    whole, cut = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut"))
    for part in ("final", "selected", "start", "periods", "verdict"):
        assert whole[part] == cut[part]
    losses = [[record.get("loss") for record in read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("method", ["recipe", "paper", "dann"])
def test_target_labels_reach_the_records_alone(
    method: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = small_pair()
    garbage = pair.target_train.with_labels((pair.target_train.labels * 3 + 1) % 10)
    worthless = pair.target_val.with_labels((pair.target_val.labels * 3 + 1) % 10)
    for name, given in (("true", pair), ("garbage", replace(pair, target_train=garbage, target_val=worthless))):
        monkeypatch.setattr(pairs, "load_pair", lambda config, given=given: given)
        assert main([*SMALL, *METHODS[method], "--select", "snd", "--out", str(tmp_path / name)]) == 0
    assert same(weights(tmp_path / "true"), weights(tmp_path / "garbage"))
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("true", "garbage")]
    assert summaries[0]["final"] == summaries[1]["final"]
    wrong = [[record["wrong"] for record in summary["periods"]] for summary in summaries]
    assert method == "dann" or wrong[0] != wrong[1]


def phases_of(config: TrainConfig) -> Phases:
    runtime = Runtime(torch.device("cpu"))
    data = deal(config, small_pair())
    step = make_step(config, make_classifier(config, data).network, len(data.target), 10)
    return Phases(config, data, step, torch.optim.AdamW(step.parameters()), runtime)


def test_official_order_trains_on_pseudo_labels_then_on_the_next_epochs_source() -> None:
    paper = small(selector="fixed", threshold=0.0, passes="separate", relabel=False, batch_norm="shared", pretrain=0)
    kinds = {}
    for order in ("paper", "official"):
        phases = phases_of(paper.changed(order=order, oversample="clip", augment="none"))
        kinds[order] = []
        for epoch in range(3):
            phases.begin(epoch)
            kinds[order].append("".join("s" if rows.pseudo is None else "p" for rows in phases.steps))
    assert kinds["paper"] == ["ssssss" + "pppppp"] * 3
    assert kinds["official"] == ["pppppp" + "ssssss"] * 2 + ["pppppp"]  # no source pass after the last selection


def test_selection_happens_once_an_epoch_and_only_when_due() -> None:
    phases = phases_of(small(pretrain=1, epochs=5, period=2))
    for epoch in (0, 1, 1, 2, 3, 3, 4, 5):
        phases.begin(epoch)
    assert [record.epoch for record in phases.step.state.periods] == [0, 2, 4]


def test_labelled_target_samples_leave_the_pool() -> None:
    config = small(labelled=2.0)
    data = deal(config, small_pair())
    assert (data.own, data.extra, len(data.target)) == (96, 20, 76)
    assert data.labelled.labels is not None
    assert torch.bincount(data.labelled.labels[96:]).tolist() == [2] * 10
    assert data.target.labels is None
    share = deal(small(labelled=0.25), small_pair())
    assert share.extra + len(share.target) == 96


def test_uneven_target() -> None:
    data = deal(small(target_size=0, target_imbalance=5.0), small_pair())
    counts = torch.bincount(data.truth)
    assert counts[0] // counts[9] == 5
    upper = deal(small(method="target", source_size=0, target_size=0, target_imbalance=5.0), small_pair())
    assert torch.equal(torch.bincount(upper.truth), counts)
    assert upper.labelled.labels is not None
    assert torch.equal(torch.bincount(upper.labelled.labels), counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "mnst-mnistm"], "unknown domain pair 'mnst-mnistm': did you mean 'mnist-mnistm'?"),
        (
            ["--data", "mnist-mnistm", "--image-size", "28", "--data-root", "/no/such"],
            "found no train-images-idx3-ubyte",
        ),
        (["--data", "folder:/no/such"], "is written folder:PATH:SOURCE:TARGET"),
        (["--source-size", "9999"], "samples, 9999 were asked for"),
        (["--labelled", "0.999"], "leaves 0 unlabelled target samples"),
        (["--target-size", "1"], "leaves 1 unlabelled target samples: give two target images or more"),
        (["--labelled", "1.5"], "labelled must be a share below 1 or a whole number, got 1.5"),
        (["--labelled", "500"], "500 labelled samples of each class were asked for"),
        (["--prior", "0.5,0.5"], "prior has 2 shares, digits-shift has 10 classes: give one each"),
        (["--selector", "flex", "--threshold", "7"], "threshold and floor must be in [0, 1], got 7.0"),
        (["--selector", "adaptive", "--rho", "nan"], "rho must be a finite number, got nan"),
        (["--method", "coral", "--batch-norm", "freeze_on_pseudo"], "method coral has no pseudo-labelled samples"),
        (["--prior", "uniform"], "prior must be even, predicted, estimate, or numbers with commas, got 'uniform'"),
        (["--shares", "1.5"], "shares must be one or more numbers in (0, 1], got (1.5,)"),
        (["--period", "0"], "period must be at least 1, got 0"),
        (["--order", "official"], "order='official' needs passes='separate', got 'paired'"),
        (["--method", "source", "--pretrain", "0"], "nothing to train: method source has pretrain 0"),
        (["--lee-start", "0.9"], "lee_end must be from lee_start to 1, got 0.9 to 0.6"),
        (["--image-size", "8", "--init", "/no/such.pt"], "no checkpoint at /no/such.pt"),
        (["--image-size", "6"], "size is 6, expected 8 to 512 pixels"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--target-imbalance", "0.5"], "target_imbalance must be at least 1, got 0.5"),
        (["--resume", "True", "--out", ""], "--resume needs --out"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], message: str, tmp_path: pathlib.Path, capsys) -> None:
    status = main([*SMALL, "--out", str(tmp_path / "run"), *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["evaluate", "diagnose"])
def test_folders_that_hold_no_run_are_refused(verb: str, tmp_path: pathlib.Path, capsys) -> None:
    assert main([verb, "--run", str(tmp_path)]) == 2
    assert "expected a folder with config.json" in capsys.readouterr().err


@pytest.mark.usefixtures("_one_pair")
def test_resume_with_another_option_names_the_field(tmp_path: pathlib.Path, capsys) -> None:
    arguments = [*SMALL, "--pretrain", "1", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert main([*arguments, "--rho", "2", "--resume", "True"]) == 2
    assert "rho is 3.0 there and 2.0 here" in capsys.readouterr().err


class Plain(nn.Module):
    """A network without batch norm, which would see each process's part of a batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 24), nn.ReLU())
        self.head = nn.Linear(24, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


# shares whose steps divide evenly: what does not, two processes leave out
EVEN = {"batch_size": 8, "lr": 3e-3, "checkpoint": "im", "selector": "top", "shares": (0.5, 0.75)}
CORAL = {"method": "coral", "coral_weight": 10.0}
RANKS = {
    "recipe": EVEN,
    "separate": EVEN | {"passes": "separate"},
    "dann": EVEN | {"method": "dann"},
    # batches with fewer than two samples for each process, which both then have whole
    "coral, batches of 3": EVEN | CORAL | {"batch_size": 3, "target_size": 90},
    "coral, last batch of 2": EVEN | CORAL | {"target_size": 90},
}


def train_on_rank(runtime: Runtime, method: str) -> tuple[dict[str, torch.Tensor], list[dict], list[PeriodRecord]]:
    config = small(**RANKS[method])
    torch.manual_seed(0)
    data = deal(config, small_pair())
    step: Step = make_step(config, Plain(), len(data.target), 10)
    records = fit_on(config, data, runtime, None, step)
    return step.network.state_dict(), records, step.state.periods


@pytest.mark.parametrize("method", ["recipe", "separate", "dann", "coral, batches of 3"])
def test_two_processes_train_as_one(two_ranks, method: str) -> None:
    expected, records, periods = train_on_rank(Runtime(torch.device("cpu")), method)
    for state, ranks_records, ranks_periods in two_ranks(train_on_rank, method):
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=2e-4)
        assert [record.class_histogram for record in ranks_periods] == [record.class_histogram for record in periods]
        for record, reference in zip(ranks_records, records, strict=True):
            assert record["loss"] == pytest.approx(reference["loss"], abs=1e-3)
            assert record["score"] == pytest.approx(reference["score"], abs=1e-3)


def test_two_processes_stay_the_same_where_the_last_batch_is_small(two_ranks) -> None:
    """Covariances of parts are not those of the whole, so that no process alone trains like them."""
    (first, records, _), (second, others, _) = two_ranks(train_on_rank, "coral, last batch of 2")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert [record["loss"] for record in records] == [record["loss"] for record in others]
    assert all(value.isfinite().all() for value in first.values())


def test_devices_option_starts_processes(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pseudolabel_da", *SMALL, "--devices", "2", "--out", str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy on the target") == 1
    assert "Grad strides do not match" not in done.stderr
    assert len(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["rng"]) == 2


@pytest.mark.usefixtures("_one_pair")
def test_demo_prints_source_only_beside_adapted(tmp_path: pathlib.Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(TrainConfig.PRESETS, "quick", small())
    monkeypatch.setattr("pseudolabel_da.cli.demo.load", lambda config, device: deal(config, small_pair(), device))
    demo(DemoConfig(device="cpu", out=str(tmp_path)))
    written = capsys.readouterr().out
    assert "source only, 2 epochs" in written
    assert "source only, 5 epochs" in written
    assert "adapted with pseudo-labels" in written
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"demo.png", "periods.png"}


def test_every_validator_has_a_name() -> None:
    assert set(VALIDATORS) == {"last", "source", "im", "snd", "entropy"}
    for name in VALIDATORS:
        assert small(checkpoint=name).settings().checkpoint == VALIDATORS[name]
