"""The entry point, whole: train, resume, evaluate, noise files, bad input, two processes."""

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
from fdiv_noisy import FDivergenceLoss, PairConditionalLoss, WarmUp, auto_loss, class_prior, noise
from fdiv_noisy.cli import criteria, main
from fdiv_noisy.cli.batches import PeerBatches, make_batches
from fdiv_noisy.cli.classifier import Classifier, make_network, statistics
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.names import LOSSES
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.cli.train import Step, fit_on
from fdiv_noisy.networks import CNN, NETWORKS, PreActResNet18, build
from robustvision_core.run.folder import load_checkpoint, read_metrics
from robustvision_core.run.runtime import Runtime
from torch import nn

SMALL = ["--train-size", "200", "--epochs", "2", "--image-size", "16", "--device", "cpu"]


def small(**changes) -> TrainConfig:
    quick = TrainConfig.PRESETS["quick"]
    return replace(quick, train_size=200, epochs=2, image_size=16, device="cpu", progress=False, **changes)


def test_train_writes_a_run_that_evaluate_reads(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["train", *SMALL, "--loss", "kl", "--val-size", "100", "--out", out]) == 0
    assert "clean test accuracy" in capsys.readouterr().out
    files = {str(path.relative_to(out)) for path in pathlib.Path(out).rglob("*") if path.is_file()}
    plots = {"plots/training.png", "plots/confusion.png"}
    assert files == plots | {"config.json", "metrics.jsonl", "summary.json", "checkpoint.pt", "best.pt"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    records = read_metrics(out)
    best = max(records, key=lambda record: record["val_score"])
    assert summary["selected"]["epoch"] == best["epoch"]
    assert 0.3 < summary["wrong_labels"] < 0.6
    assert main(["evaluate", "--run", out, "--which", "best", "--out", str(tmp_path / "c.png")]) == 0
    accuracy = f"{100 * summary['selected']['accuracy']:.2f} %"
    assert accuracy in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "loss", [loss for loss in LOSSES if loss not in ("auto", "pair-conditional", "forward", "backward")]
)
def test_every_loss_trains(loss: str, tmp_path: pathlib.Path) -> None:
    assert main(["train", *SMALL, "--loss", loss, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("noise", "loss", "structure", "chosen"),
    [
        ("sparse-high", "auto", "sparse", "PairConditionalLoss"),
        ("sparse-high", "pair-conditional", "sparse", "PairConditionalLoss"),
        ("uniform-high", "auto", "uniform", None),
        ("none", "auto", "clean", "CrossEntropyLoss"),
        ("random-high", "forward", "uniform", "ForwardCorrection"),
    ],
)
def test_noise_is_found_and_answered(
    noise: str,
    loss: str,
    structure: str,
    chosen: str | None,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--noise", noise, "--loss", loss, "--train-size", "0", "--epochs", "2"]
    assert main(["train", *SMALL, *arguments, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith(f"{structure} noise")
    assert structure in json.loads((tmp_path / "run" / "summary.json").read_text())["found"]
    config = small(noise=noise, loss=loss)
    criterion, report = criteria.build(replace(config, train_size=0), load(replace(config, train_size=0)))
    assert report is not None
    assert report.structure == structure
    if loss == "auto":
        assert report.choice.count("\n") >= 4
        assert "taken: " in report.choice
    if chosen:
        assert type(criterion.then).__name__ == chosen
    assert criterion.epochs == (1 if loss in ("auto", "pair-conditional") else 0)


def test_one_epoch_leaves_none_to_warm_up(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--loss", "auto", "--train-size", "0", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", *SMALL, *arguments]) == 0
    assert capsys.readouterr().out.startswith("one epoch leaves none for cross-entropy before auto")


def test_pair_conditional_needs_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--noise", "uniform-high", "--loss", "pair-conditional", "--train-size", "0"]
    assert main(["train", *SMALL, *arguments]) == 2
    assert "needs labels that flip in pairs, but the noise looks uniform" in capsys.readouterr().err


@pytest.mark.parametrize("correction", ["true", "file"])
def test_pair_conditional_takes_its_pairs_from_a_given_matrix(correction: str, tmp_path: pathlib.Path) -> None:
    matrix = noise.sparse({(0, 3): (0.6, 0.2), (5, 1): (0.3, 0.1)}, 10).matrix()
    torch.save(matrix, tmp_path / "t.pt")
    given = str(tmp_path / "t.pt") if correction == "file" else correction
    config = replace(small(loss="pair-conditional", correction=given), train_size=0)
    criterion, report = criteria.build(config, load(config))
    assert report is None
    assert isinstance(criterion.then, PairConditionalLoss)
    expected = [3, 5, 2, 0, 4, 1, 6, 7, 8, 9] if correction == "file" else [1, 0, 3, 2, 8, 7, 9, 5, 4, 6]
    assert criterion.then.partner.tolist() == expected


def test_pair_conditional_refuses_a_matrix_without_pairs(tmp_path: pathlib.Path, capsys) -> None:
    torch.save(torch.full((10, 10), 0.05) + torch.eye(10) * 0.5, tmp_path / "t.pt")
    arguments = ["--loss", "pair-conditional", "--correction", str(tmp_path / "t.pt")]
    assert main(["train", *SMALL, *arguments]) == 2
    assert "has none" in capsys.readouterr().err


def test_external_product_goes_with_every_loss(tmp_path: pathlib.Path) -> None:
    arguments = ["--product", "external", "--train-size", "0", "--epochs", "2"]
    for loss in ("ce", "pair-conditional", "auto", "tv"):
        assert main(["train", *SMALL, *arguments, "--loss", loss, "--out", str(tmp_path / loss)]) == 0


def test_auto_loss_in_two_lines() -> None:
    train = load(replace(small(noise="sparse-high"), train_size=0)).in_memory()
    criterion, report = auto_loss(train.images, train.labels, 10, warmup=2, race=False)
    assert criterion.epochs == 2
    assert criterion.samples == len(train.labels)
    assert {tuple(pair) for pair in report.pairs.tolist()} == {(0, 1), (2, 3), (4, 8), (5, 7), (6, 9)}
    with pytest.raises(ValueError, match="warmup must be at least 1"):
        auto_loss(train.images, train.labels, 10, warmup=0)


@pytest.mark.parametrize("loss", ["tv", "forward", "backward"])
def test_true_correction(loss: str, tmp_path: pathlib.Path) -> None:
    arguments = ["--loss", loss, "--correction", "true", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", *SMALL, *arguments]) == 0


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["step"]


@pytest.mark.parametrize("product", ["exact", "external"])
def test_ctrl_c_saves_exits_130_and_resume_is_exact(tmp_path: pathlib.Path, product: str) -> None:
    arguments = ["train", *SMALL, "--loss", "kl", "--product", product, "--epochs", "12", "--batch-size", "8"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fdiv_noisy", *arguments, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert errors.startswith(f"fdiv-noisy: stopped; the run is in {tmp_path / 'cut'}, go on with: fdiv-noisy train")
    assert errors.endswith(" --resume\n")
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["progress"]["epoch"] < 12
    assert main([*arguments, "--out", str(tmp_path / "cut"), "--resume", "True"]) == 0
    expected, actual = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_noise_make_inspect_and_train_on_the_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = str(tmp_path / "labels.pt")
    assert main(["noise", "make", "--noise", "uniform:0.4", "--out", labels]) == 0
    assert "% wrong" in capsys.readouterr().out
    assert main(["noise", "inspect", "--noise", f"file:{labels}", "--plot", str(tmp_path / "t.png")]) == 0
    written = capsys.readouterr().out
    assert "1442 labels, 10 classes" in written
    assert 0.34 < float(written.split("wrong labels: ")[1].split("%")[0]) / 100 < 0.46
    assert (tmp_path / "t.png").exists()
    config = small(noise=f"file:{labels}")
    made = load(config)
    direct = load(small(noise="uniform:0.4"))
    assert torch.equal(made.train.labels, direct.train.labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "klx"], "unknown loss 'klx': did you mean 'kl'?"),
        (["--noise", "spars-high"], "unknown noise 'spars-high': did you mean 'sparse-high'?"),
        (["--noise", "uniform:1.5"], "--noise uniform:1.5: "),
        (["--noise", "uniform:abc"], "--noise uniform:abc: "),
        (["--noise", "file:/no/such.pt"], "no file /no/such.pt"),
        (["--noise", "published:r0_2"], "no noise was published for digits"),
        (["--data", "mnist", "--data-root", "/no/such"], "mnist: found no train-images-idx3-ubyte"),
        (["--data", "mnst"], "unknown data set 'mnst': did you mean 'mnist'?"),
        (["--train-size", "9999"], "train_size 9999 and val_size 0 do not fit"),
        (
            ["--val-size", "2000", "--train-size", "0"],
            "1442 training samples: train_size 0 and val_size 2000 do not fit",
        ),
        (
            ["--loss", "forward", "--train-size", "5"],
            "the noise of digits cannot be found: cross-fitting 2 folds needs",
        ),
        (["--warmup", "5", "--epochs", "2"], "5 of 2 epochs go to cross-entropy, which leaves none for kl"),
        (["--weight-decay", "-1"], "weight_decay must be 0 or more, got -1"),
        (["--momentum", "-1"], "momentum must be 0 or more, got -1"),
        (["--noise", "sparse-high:0.3"], "sparse-high takes no argument"),
        (["--noise", "uniform"], "it needs a rate, as in uniform:0.4"),
        (["--noise", "asymmetric:0.4"], "it is between classes of cifar-10, not of digits"),
        (["--image-size", "8"], "the CNN needs images of at least 16 pixels, got 8"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--resume", "True", "--out", ""], "--resume needs --out"),
        (["--loss", "tv", "--correction", "/no/such.npy"], "no such file"),
        (["--loss", "ce", "--correction", "estimate"], "ce takes no --correction"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--init", "/no/such.pt"], "no checkpoint at /no/such.pt"),
        (["--network", "resnet50"], "resnet50 needs images of 3 channels"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["train", *SMALL, "--loss", "kl", "--out", str(tmp_path / "run"), *arguments])
    errors = capsys.readouterr().err
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_label_files_of_the_wrong_length_or_class_are_refused(tmp_path: pathlib.Path, capsys) -> None:
    for labels, message in (
        (torch.zeros(7, dtype=torch.int64), "holds 7 labels"),
        (torch.full((1442,), 11), "label 11"),
    ):
        torch.save({"noise_label_train": labels}, tmp_path / "labels.pt")
        assert main(["train", *SMALL, "--loss", "kl", "--noise", f"file:{tmp_path / 'labels.pt'}"]) == 2
        assert message in capsys.readouterr().err


def test_resume_with_another_option_names_the_field(tmp_path: pathlib.Path, capsys) -> None:
    arguments = ["train", *SMALL, "--loss", "kl", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert main([*arguments, "--lr", "0.5", "--resume", "True"]) == 2
    assert "lr is 0.001 there and 0.5 here" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_external_product_draws_independent_peers() -> None:
    config = small(product="external", loss="tv")
    with Runtime.session("cpu") as runtime:
        batches = make_batches(config, load(config).train, runtime, peers=True)
        assert isinstance(batches, PeerBatches)
        batch, peer_images, peer_labels = next(iter(batches.epoch(0)))
        again = next(iter(batches.epoch(0)))
    assert batch.images.shape == peer_images.shape
    assert not torch.equal(batch.images, peer_images)
    assert not torch.equal(batch.labels, peer_labels)
    assert torch.equal(peer_images, again.peer_images)


def gradients(runtime: Runtime, product: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(4, (8,), generator=torch.Generator().manual_seed(1))
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    prior = class_prior(labels, 4)
    criterion = WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("js", "exact", prior), 0 if product == "exact" else 1)
    step = Step(nn.Sequential(nn.Flatten(), nn.Linear(256, 4)), criterion)
    wrapped = runtime.wrap(step)
    rows = torch.arange(8).chunk(runtime.world_size)[runtime.rank]
    from robustvision_core.data import Batch

    wrapped(Batch(images[rows], labels[rows], rows)).backward()
    return [p.grad for p in step.parameters() if p.grad is not None]


@pytest.mark.parametrize("product", ["exact", "cross-entropy"])
def test_two_processes_give_one_process_gradients(two_ranks, product: str) -> None:
    expected = gradients(Runtime(torch.device("cpu")), product)
    for rank in two_ranks(gradients, product):
        for actual, reference in zip(rank, expected, strict=True):
            torch.testing.assert_close(actual, reference, rtol=1e-5, atol=1e-7)


def train_on_rank(runtime: Runtime, folder: str) -> tuple[dict, list[dict]]:
    config = small(loss="kl", out=folder, val_size=64, batch_size=20)
    torch.manual_seed(0)
    noisy = load(config)
    network = make_network(config, noisy.train)
    network.features[-1].p = 0.0  # type: ignore[union-attr, operator, assignment]  # dropout differs by process
    prior = class_prior(noisy.train.labels, 10)
    step = Step(network, WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("kl", "exact", prior), 1))
    records = fit_on(config, noisy, runtime, None, step, Classifier(network, *statistics(config, noisy.train)))
    return step.network.state_dict(), records


def test_two_processes_train_as_one(two_ranks, tmp_path: pathlib.Path) -> None:
    with Runtime.session("cpu") as runtime:
        expected, records = train_on_rank(runtime, str(tmp_path))
    for state, ranks_records in two_ranks(train_on_rank, str(tmp_path)):
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)
        for record, reference in zip(ranks_records, records, strict=True):
            assert record["loss"] == pytest.approx(reference["loss"], abs=1e-4)
            assert record["val_score"] == pytest.approx(reference["val_score"], abs=1e-3)


def rate_found(runtime: Runtime) -> float:
    # networks of another seed on every rank stand for devices that round differently
    _, report = criteria.build(config := small(seed=runtime.rank), load(config), runtime)
    assert report is not None
    return report.rate


def test_two_processes_agree_on_what_they_find(two_ranks) -> None:
    expected = rate_found(Runtime(torch.device("cpu")))
    assert two_ranks(rate_found) == [expected, expected]


def test_devices_option_starts_processes(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "fdiv_noisy", "train", *SMALL, "--loss", "kl", "--devices", "2"]
    done = subprocess.run(
        [*command, "--epochs", "1", "--out", str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clean test accuracy") == 1
    assert len(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["rng"]) == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_logits(name: str) -> None:
    network = build(name, 3, 32, 7)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_cnn_is_the_published_one() -> None:
    shapes = [tuple(p.shape) for p in CNN().parameters()]
    assert shapes == [(16, 1, 5, 5), (16,), (32, 16, 5, 5), (32,), (10, 512), (10,)]


def test_preact_resnet18_has_its_published_size() -> None:
    # 11.17 million parameters without the final batch norm, whose 2 * 512 come on top
    published = sum(p.numel() for p in PreActResNet18(final_activation=False).parameters())
    assert published == 11_171_146
    assert sum(p.numel() for p in PreActResNet18().parameters()) == published + 1024
