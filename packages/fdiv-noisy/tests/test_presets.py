"""The presets: schedules as published, and one step of each on data of its shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fdiv_noisy.choice.race import Race
from fdiv_noisy.cli import criteria
from fdiv_noisy.cli.batches import PeerBatches, make_batches
from fdiv_noisy.cli.classifier import make_network
from fdiv_noisy.cli.criteria import make_optimizer
from fdiv_noisy.cli.data import NoisySet
from fdiv_noisy.cli.recipes import TrainConfig
from fdiv_noisy.cli.train import Step, make_scheduler, takes_peers
from fdiv_noisy.estimation import select_structure
from fdiv_noisy.networks import build
from robustvision_core.data import ImageSet
from robustvision_core.run.runtime import Runtime
from torch import nn

# first epoch of each learning rate, from the published code (cifar100: cross-entropy for the 120 epochs of the text)
RATES = {
    "mnist-paper": {0: 1e-3, 21: 5e-4},
    "cifar10-paper": {0: 0.01, 30: 1e-3, 60: 1e-4, 90: 1e-5},
    "cifar100-paper": {0: 0.1, 60: 0.01, 150: 1e-3, 180: 1e-4, 210: 1e-5},
    "clothing1m-paper": {0: 2e-3, 10: 5e-5, 15: 1e-5, 20: 5e-6, 25: 1e-6, 30: 5e-7, 35: 1e-7},
}
EPOCHS = {"mnist-paper": 80, "cifar10-paper": 100, "cifar100-paper": 220, "clothing1m-paper": 40}
SHAPES = {"mnist": (1, 28, 10), "fashion": (1, 28, 10), "mnist-paper": (1, 28, 10), "quick": (1, 28, 10),
          "smoke": (1, 16, 10), "cifar10": (3, 32, 10), "cifar10-paper": (3, 32, 10),
          "cifar100-paper": (3, 32, 100), "clothing1m-paper": (3, 224, 14)}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_learning_rates_are_the_published_ones(name: str) -> None:
    config = TrainConfig.PRESETS[name]
    assert config.epochs == EPOCHS[name]
    optimizer = make_optimizer(config.optimizer, nn.Linear(1, 1).parameters())
    scheduler = make_scheduler(config, optimizer)
    rate = 0.0
    for epoch in range(config.epochs):
        rate = RATES[name].get(epoch, rate)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate), epoch
        optimizer.step()
        scheduler.step()


def all_right(images, labels, num_classes, losses, **_) -> Race:
    return Race(labels, dict.fromkeys(losses, labels))


@pytest.mark.parametrize("name", TrainConfig.PRESETS)
def test_one_step_of_every_preset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    channels, side, k = SHAPES[name]
    config = replace(TrainConfig.PRESETS[name], batch_size=4, device="cpu")
    assert config.preset == name
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, channels, side, side), generator=generator).byte()
    labels = torch.randint(k, (8,), generator=generator)
    data = ImageSet(images, labels, tuple(map(str, range(k))))

    def found(images, labels, num_classes, *, make_model, **_):
        if make_model is not None:
            assert make_model()(images[:2].float()).shape == (2, num_classes)
        many = torch.arange(num_classes).repeat(40)
        return select_structure(torch.full((len(many), num_classes), 1 / num_classes), many)

    monkeypatch.setattr(criteria, "estimate", found)
    monkeypatch.setattr(criteria, "run_race", all_right)
    noisy = NoisySet(data, None, data, None)
    with Runtime.session("cpu") as runtime:
        criterion, _ = criteria.build(config, noisy, runtime)
        step = Step(make_network(config, data), criterion)
        batches = make_batches(config, data, runtime, peers=takes_peers(criterion))
        assert isinstance(batches, PeerBatches) == name.endswith("-paper")
        criterion.set_epoch(criterion.epochs)
        optimizer = make_optimizer(config.optimizer, step.parameters())
        loss = step(next(iter(batches.epoch(0))))
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.network.parameters())


def test_no_preset_warms_up_for_ever() -> None:
    for config in TrainConfig.PRESETS.values():
        criteria.check_warmup(config)
    criteria.check_warmup(replace(TrainConfig.PRESETS["quick"], loss="ce", warmup=50))


def test_networks_of_the_presets_take_their_images() -> None:
    for name, (channels, side, k) in SHAPES.items():
        build(TrainConfig.PRESETS[name].network, channels, side, k)
