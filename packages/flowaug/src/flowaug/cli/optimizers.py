"""Optimizers and rates: one for the classifier, one for the augmenter, seen by the training loop as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from flowaug.classifier import AugmentedClassifier
from flowaug.cli.recipes import TrainConfig
from flowaug.networks import FixupResNet


class Paired(torch.optim.Optimizer):
    """Several optimizers, each over parameters of its own, that step together.

    Args:
        parts: The optimizers; their groups become this one's, in order.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Whoever changes a rate here changes it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every part."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def make_optimizer(config: TrainConfig, model: AugmentedClassifier) -> Paired:
    """The optimizers of `config`; the augmenter's group is the last where it has parameters."""
    groups = classifier_groups(config, model.classifier)
    if config.optimizer.kind == "adam":
        parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, config.optimizer.lr, weight_decay=config.optimizer.weight_decay)
        ]
    else:
        parts = [
            torch.optim.SGD(
                groups, config.optimizer.lr, config.optimizer.momentum, weight_decay=config.optimizer.weight_decay
            )
        ]
    learned = list(model.augmenter.parameters())
    if learned:
        parts.append(torch.optim.Adam(learned, config.optimizer.lr_aug))
    return Paired(*parts)


def classifier_groups(config: TrainConfig, classifier: nn.Module) -> list[dict[str, Any]]:
    """Groups of parameters; the scalars of Fixup networks learn at a tenth of the rate."""
    scalars = [p for part in classifier.modules() if isinstance(part, FixupResNet) for p in part.scalars()]
    chosen = {id(p) for p in scalars}
    groups: list[dict[str, Any]] = [{"params": [p for p in classifier.parameters() if id(p) not in chosen]}]
    return (
        groups if not scalars else [*groups, {"params": scalars, "lr": config.optimizer.lr / 10, "weight_decay": 0.0}]
    )


def make_scheduler(config: TrainConfig, optimizer: Paired) -> LambdaLR:
    """Rates by epoch; that of a frozen classifier is 0."""

    def scheduled(epoch: int) -> float:
        cosine = (
            config.optimizer.lr_end
            + (1 - config.optimizer.lr_end) * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
        )
        passed = [value for share, value in config.optimizer.lr_steps if epoch >= round(share * config.epochs)]
        return cosine * (passed[-1] if passed else 1.0)

    def classifier(epoch: int) -> float:
        return 0.0 if config.objective.freeze_after and epoch >= config.objective.freeze_after else scheduled(epoch)

    def augmenter(epoch: int) -> float:
        return scheduled(epoch) if config.optimizer.schedule_aug else 1.0

    learned = len(optimizer.parts) > 1
    count = len(optimizer.param_groups) - learned
    return LambdaLR(optimizer, [classifier] * count + [augmenter] * learned)


def forget(optimizer: Paired, parameters: Iterable[nn.Parameter]) -> None:
    """Drop the running means of parameters that have had no gradient but zeros so far.

    Adam would divide its first real gradients by a mean square still close to zero, and leap.
    """
    for parameter in parameters:
        for part in optimizer.parts:
            part.state.pop(parameter, None)
