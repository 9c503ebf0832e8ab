"""The networks that examine noisy labels before a training: what they are, and how they compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fdiv_noisy.choice.race import Race
from fdiv_noisy.cli import criteria
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.estimation import select_structure
from fdiv_noisy.networks import PreActResNet18
from robustvision_core.run.runtime import Runtime


def small(**changes) -> TrainConfig:
    quick = TrainConfig.PRESETS["quick"]
    return replace(quick, train_size=200, epochs=2, image_size=16, device="cpu", progress=False, **changes)


def test_examining_takes_the_configured_network_device_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []

    def raced(images, labels, num_classes, losses, **options) -> Race:
        assert (options["make_model"] is None) == (asked[-1]["make_model"] is None)
        assert options["plan"].steps == 2 * 7  # epochs of 200 samples in batches of 32
        return Race(labels, dict.fromkeys(losses, labels))

    def fake(images, labels, num_classes, **options):
        asked.append(options)
        options["on_epoch"](0, 1, 0.5)
        return select_structure(torch.eye(num_classes)[labels].add(0.01).div(1 + 0.01 * num_classes), labels)

    monkeypatch.setattr(criteria, "estimate", fake)
    monkeypatch.setattr(criteria, "run_race", raced)
    config = small(network="preact_resnet18")
    with Runtime.session("cpu") as runtime:
        criteria.build(config, load(config), runtime)
        assert asked[-1]["device"] == runtime.device
    assert isinstance(asked[-1]["make_model"](), PreActResNet18)
    criteria.build(small(), load(small()))
    assert asked[-1]["make_model"] is None


def test_examining_networks_compute_in_the_precision_of_the_training() -> None:
    config = small(network="resnet8")
    train = load(config).in_memory()
    images = train.images[:4].float()
    logits = {}
    for precision in ("fp32", "bf16"):
        with Runtime.session("cpu", precision) as runtime:
            make = criteria.examiner(config, train, runtime)
            assert make is not None
            torch.manual_seed(0)
            network = make().eval()
            logits[precision] = network(images)
            with runtime.autocast():
                inner = network.network if precision == "bf16" else network
                assert torch.equal(inner(images).float(), logits[precision])
        assert logits[precision].dtype == torch.float32
        assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert not torch.equal(logits["fp32"], logits["bf16"])
    assert torch.allclose(logits["fp32"], logits["bf16"], atol=0.1)
