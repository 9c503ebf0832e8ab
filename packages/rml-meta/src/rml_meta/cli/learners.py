"""Few-shot methods by name, as a configuration asks for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from robustvision_core.errors import UserError

from rml_meta.cli.recipes import TrainConfig
from rml_meta.methods import (
    MAML,
    RML,
    Baseline,
    BaselinePP,
    FewShotMethod,
    MatchingNet,
    MetaLSTM,
    ProtoNet,
    RelationNet,
    Reptile,
)
from rml_meta.methods.embedding import EmbeddingMethod
from rml_meta.networks import Backbone, Classifier, build_backbone

Maker = Callable[[TrainConfig, int, int], FewShotMethod]
"""Configuration, channels of the images and number of base classes to a method."""


def build(config: TrainConfig, channels: int, classes: int) -> FewShotMethod:
    """The method of `config` with fresh weights.

    Raises:
        UserError: Its options do not go together.
    """
    try:
        method = MAKERS[config.method](config, channels, classes)
    except ValueError as error:
        raise UserError(f"{config.method}: {error}") from error
    if config.transductive is not None:
        method.transductive = config.transductive
    if isinstance(method, EmbeddingMethod):
        method.train_ways = config.train_ways or None
    return method


def backbone(config: TrainConfig, channels: int, maps: bool = False) -> Backbone:
    """The backbone of `config`, flat or giving feature maps."""
    name, options = config.backbone, {"norm": config.norm}
    if name.startswith("conv"):
        options |= {"hidden": config.hidden}
    if maps and name == "conv4":
        return build_backbone("conv4_maps", channels, config.image_size, **options)
    return build_backbone(name, channels, config.image_size, flat=not maps, **options)


def _classifier(config: TrainConfig, channels: int, zero_head: bool = False) -> Classifier:
    return Classifier(backbone(config, channels), config.ways, zero_head=zero_head)


def _inner_options(config: TrainConfig) -> dict[str, Any]:
    return {
        "inner_lr": config.inner_lr,
        "inner_steps": config.inner_steps,
        "test_inner_steps": config.test_inner_steps or None,
        "backend": config.backend,
        "first_order": config.first_order,
        "adapted": config.adapted,
        "learn_lr": config.learn_lr,
        "per_step_norm": config.per_step_norm,
        "multi_step_epochs": config.multi_step_epochs,
        "reduction": config.reduction,
    }


def _maml(config: TrainConfig, channels: int, classes: int) -> MAML:
    return MAML(_classifier(config, channels, config.zero_head), **_inner_options(config))


def _rml(config: TrainConfig, channels: int, classes: int) -> RML:
    return RML(
        _classifier(config, channels, config.zero_head),
        pairing=config.pairing,
        include_self=config.include_self,
        class_alignment=config.class_alignment,
        penalty=None if config.penalty == "none" else config.penalty,
        penalty_weight=config.penalty_weight,
        anneal_steps=config.anneal_steps,
        **_inner_options(config),
    )


def _reptile(config: TrainConfig, channels: int, classes: int) -> Reptile:
    inner = functools.partial(torch.optim.Adam, lr=config.reptile_lr, betas=(0.0, 0.999))
    return Reptile(
        _classifier(config, channels),
        config.reptile_steps,
        config.reptile_test_steps,
        inner_batch=config.reptile_batch or None,
        inner_optimizer=inner,
    )


def _metalstm(config: TrainConfig, channels: int, classes: int) -> MetaLSTM:
    return MetaLSTM(_classifier(config, channels), config.lstm_steps)


def _matchingnet(config: TrainConfig, channels: int, classes: int) -> MatchingNet:
    body = backbone(config, channels)
    return MatchingNet(body, body.features, config.ways)


def _protonet(config: TrainConfig, channels: int, classes: int) -> ProtoNet:
    return ProtoNet(backbone(config, channels), config.ways)


def _relationnet(config: TrainConfig, channels: int, classes: int) -> RelationNet:
    body = backbone(config, channels, maps=True)
    return RelationNet(body, body.map_shape, config.ways, hidden=config.hidden)


def _baseline(config: TrainConfig, channels: int, classes: int, kind: type[Baseline] = Baseline) -> Baseline:
    body = backbone(config, channels)
    return kind(body, body.features, classes, config.ways)


MAKERS: dict[str, Maker] = {
    "rml": _rml,
    "maml": _maml,
    "reptile": _reptile,
    "metalstm": _metalstm,
    "matchingnet": _matchingnet,
    "protonet": _protonet,
    "relationnet": _relationnet,
    "baseline": _baseline,
    "baseline++": functools.partial(_baseline, kind=BaselinePP),
}
