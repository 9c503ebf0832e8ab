"""The losses of the rivals, the advice of diagnose, and MNIST-M written to files."""

from __future__ import annotations

import pathlib
import struct

import pytest
import torch
from pseudolabel_da import coral_loss
from pseudolabel_da.algorithm.objective import Labeled
from pseudolabel_da.cli import main
from pseudolabel_da.cli.diagnose import advice, table
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import Step
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord, Verdict
from pseudolabel_da.networks import SmallCNN
from pseudolabel_da.rivals.transfer import TransferLoss
from robustvision_core.data import load
from torch import nn
from torch.nn import functional as F


def batches() -> tuple[Labeled, Labeled]:
    source = Labeled(torch.randn(6, 3, 8, 8), torch.randint(4, (6,)))
    return source, Labeled(torch.randn(5, 3, 8, 8), torch.full((5,), -1))


@pytest.mark.parametrize("together", [True, False])
def test_coral_adds_the_weighted_distance_of_logits(together: bool) -> None:
    network, (source, target) = SmallCNN(3, 8, 4).eval(), batches()
    loss = TransferLoss(network, nn.CrossEntropyLoss(), "coral", together=together)
    ours, theirs = network(source.inputs), network(target.inputs)
    expected = F.cross_entropy(ours, source.labels) + 0.7 * coral_loss(ours, theirs)
    torch.testing.assert_close(loss(source, target, 0.7), expected)
    torch.testing.assert_close(loss(source, None), F.cross_entropy(ours, source.labels))


def test_lee_adds_the_weighted_loss_on_the_network_s_own_answers() -> None:
    network, (source, target) = SmallCNN(3, 8, 4).eval(), batches()
    loss = TransferLoss(network, nn.CrossEntropyLoss(), "lee")(source, target, 2.0)
    probs = network(target.inputs).softmax(1)
    expected = F.cross_entropy(network(source.inputs), source.labels) - 2 * probs.amax(1).log().mean()
    torch.testing.assert_close(loss, expected)


def test_dann_reverses_the_domain_gradient_for_the_network_alone() -> None:
    network, (source, target) = SmallCNN(3, 8, 4).eval(), batches()
    loss = TransferLoss(network, nn.CrossEntropyLoss(), "dann")
    gradients = []
    for strength in (0.0, 0.5):
        loss.zero_grad()
        loss(source, target, strength).backward()
        gradients.append({name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None})
    assert loss.domain_head is not None
    loss.zero_grad()
    features = torch.cat([network.features(source.inputs), network.features(target.inputs)])
    logits = loss.domain_head(features)
    (F.softplus(-logits[:6]).mean() / 2 + F.softplus(logits[6:]).mean() / 2).backward()
    for name, p in loss.named_parameters():
        assert p.grad is not None or name.startswith("model.head")
        domain = torch.zeros_like(p) if p.grad is None else p.grad
        if name.startswith("domain_head"):
            torch.testing.assert_close(gradients[1][name], domain)
        else:
            torch.testing.assert_close(gradients[1][name], gradients[0][name] - 0.5 * domain)


def test_pretraining_gives_the_domain_classifier_a_gradient_of_zero() -> None:
    source, _ = batches()
    loss = TransferLoss(SmallCNN(3, 8, 4), nn.CrossEntropyLoss(), "dann")
    loss(source, None).backward()
    assert loss.domain_head is not None
    assert all(p.grad is not None and not p.grad.any() for p in loss.domain_head.parameters())


def record(**changes) -> PeriodRecord:
    values = {"epoch": 0, "period": 0, "pool": 100, "candidates": 100, "selected": 10, "total": 10, "share": 0.1}
    values |= {"source_accuracy": 0.9, "threshold": 0.9, "ceiling": 0.8, "max_confidence": 0.99, "invalid": 0}
    values |= {"class_histogram": [5, 5], "entropy": 1.0, "effective_classes": 2.0, "max_share": 0.5}
    return PeriodRecord(**values | {"empty_classes": 0, "flip_rate": None, "drift": None} | changes)


def test_advice_is_one_line_for_each_failure() -> None:
    quick = TrainConfig.PRESETS["quick"]
    assert advice([record()], quick) == [
        "no failure seen: how many labels are wrong is not known; look at some of them before you use the network"
    ]
    failed = [record(), record(verdict=Verdict.FEW_CLASSES), record(verdict=Verdict.HYPER_CONSERVATIVE)]
    assert [line.split(":")[0] for line in advice(failed, quick)] == ["few classes", "hyper-conservative"]


def test_advice_leaves_out_what_the_run_does_already() -> None:
    quick, paper = TrainConfig.PRESETS["quick"], TrainConfig.PRESETS["paper"]
    failures = [record(verdict=verdict) for verdict in Verdict]
    for line in advice(failures, quick):
        for word in ("--selector", "--relabel", "--augment", "--batch-norm", "--rho", "--threshold", "--ceiling-aware"):
            assert word not in line
    text = "\n".join(advice(failures, paper))
    for word in ("--selector balanced", "--relabel", "--augment strong", "--batch-norm target", "--ceiling-aware"):
        assert word in text
    assert "--shares" not in text
    assert "--ceiling-aware" not in "\n".join(advice(failures, paper.changed(selector="fixed")))


def test_table_shows_thresholds_by_class_and_unknown_values() -> None:
    lines = table([record(), record(threshold=[None, 0.25], wrong=3), record(threshold=[None, None])]).splitlines()
    place = lines[0].split().index("threshold")
    assert [line.split()[place] for line in lines[1:]] == ["0.900", "0.250+", "-"]
    assert [line.split()[2] for line in lines[1:]] == ["-", "3", "-"]
    assert len({len(line) for line in lines}) == 1


def test_extra_state_holds_no_object(tmp_path: pathlib.Path) -> None:
    from pseudolabel_da.cli.step import make_step

    step = make_step(TrainConfig(), SmallCNN(3, 8, 4), 7, 4)
    step.state.periods.append(record(verdict=Verdict.LIBERAL))
    step.state.pool.selected[2] = True
    torch.save(step.state_dict(), tmp_path / "step.pt")
    other: Step = make_step(TrainConfig(), SmallCNN(3, 8, 4), 7, 4)
    other.load_state_dict(torch.load(tmp_path / "step.pt", weights_only=True))
    assert other.state.periods == step.state.periods
    assert other.state.pool.selected.nonzero().tolist() == [[2]]


def write_mnist(folder: pathlib.Path) -> None:
    """A few noise digits in MNIST's files."""
    (folder / "mnist").mkdir(parents=True)
    for prefix, count in (("train", 12), ("t10k", 8)):
        images = (torch.rand(count, 28, 28) * 255).byte()
        labels = torch.arange(count).byte() % 10
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / "mnist" / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, count)
        (folder / "mnist" / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.numpy().tobytes())


@pytest.mark.parametrize("form", ["npz", "png"])
def test_mnistm_files_hold_what_the_loader_makes(form: str, tmp_path: pathlib.Path, capsys) -> None:
    write_mnist(tmp_path)
    out = tmp_path / "made" / ("m.npz" if form == "npz" else "m")
    prepare = ["prepare-mnistm", "--data-root", str(tmp_path), "--backgrounds", "procedural", "--seed", "3"]
    assert main([*prepare, "--format", form, "--out", str(out)]) == 0
    assert "12 train and 8 test images" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # nothing temporary is left
    for split in ("train", "test"):
        made = load("mnist-m-procedural", split, str(tmp_path), seed=3)
        if form == "npz":
            read = load(f"npz:{out}", split)
            assert torch.equal(read.images, made.images)
            assert torch.equal(read.labels, made.labels)
            continue
        read = load(f"folder:{out}", split, image_size=28)
        order = made.labels.argsort(stable=True)  # files are read by class, then by number
        assert torch.equal(read.images, made.images[order])
        assert torch.equal(read.labels, made.labels[order])
    assert main([*prepare, "--format", form, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found no train-images-idx3-ubyte"),
        (["--photos", "x", "--backgrounds", "procedural"], "do not go together"),
    ],
)
def test_prepare_refuses_what_cannot_be_made(arguments: list[str], message: str, tmp_path, capsys) -> None:
    assert main(["prepare-mnistm", "--data-root", str(tmp_path), "--out", str(tmp_path / "m.npz"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
