"""The classifier's and the augmenter's optimizers, stepped as one."""

from __future__ import annotations

import copy

import pytest
import torch
from flowaug.cli.data import load
from flowaug.cli.models import make_model
from flowaug.cli.optimizers import make_optimizer, make_scheduler
from flowaug.cli.recipes import TrainConfig
from torch import Tensor

TINY = TrainConfig.PRESETS["quick"].changed(train_size=64, device="cpu")


def test_rates_follow_the_published_steps() -> None:
    """CIFAR: a tenth after 80 and again after 160 of 200 epochs, scalars a tenth of that, the augmenter's constant."""
    config = TrainConfig.PRESETS["cifar10-paper"].changed(device="cpu")
    model = make_model(config, load(TINY.changed(image_size=32)).train)
    optimizer = make_optimizer(config, model)
    scheduler = make_scheduler(config, optimizer)
    rates = []
    for _ in range(200):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for epoch, rate in ((0, 0.1), (79, 0.1), (80, 0.01), (159, 0.01), (160, 0.001)):
        assert rates[epoch] == pytest.approx([rate, rate / 10, 1e-4])


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_paired_optimizers_step_as_their_parts_and_restore(kind: str) -> None:
    """Both step as they would alone, and a restored pair goes on exactly, its groups still shared with its parts."""
    config = TINY.changed(optimizer=kind, weight_decay=0.01, lr=0.1, lr_aug=0.2)
    data = load(config).train

    def stepped(pair: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = make_model(config, data)
        optimizer = make_optimizer(config, model)
        for number in range(4):
            if pair and number == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = make_optimizer(config, model)
                optimizer.load_state_dict(state)
                optimizer.param_groups[0]["lr"] = 0.05
            elif number == 2:
                optimizer.parts[0].param_groups[0]["lr"] = 0.05
            for place, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (place + number))
            for part in (optimizer,) if pair else optimizer.parts:
                part.step()
        return [parameter.detach() for parameter in model.parameters()]

    assert all(torch.equal(one, other) for one, other in zip(stepped(True), stepped(False), strict=True))
