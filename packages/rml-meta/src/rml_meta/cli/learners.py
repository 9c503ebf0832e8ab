"""Few-shot methods by name, as a configuration asks for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from robustvision_core.data import ImageSet, channel_stats
from robustvision_core.errors import UserError
from robustvision_core.networks.external import External, build_external, statistics_of
from robustvision_core.networks.names import is_external
from torch import Tensor

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

IMAGENET_CLASSES = 1000  # of the heads that most files of weights have; ours is another


class Extractor(Backbone):
    """A network of timm or torchvision without its head.

    Args:
        external: As `build_external` gives it.
    """

    def __init__(self, external: External) -> None:
        super().__init__()
        self.body, self.repeat = external.network.body, external.network.repeat
        self.features, self.flat = external.network.head.in_features, True

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, C, H, W)."""
        return self.body(images.expand(-1, 3, -1, -1) if self.repeat else images).flatten(1)


def statistics(config: TrainConfig, base: ImageSet) -> tuple[Tensor, Tensor]:
    """How images are normalised: as the base classes are, or as the `weights` were trained with."""
    if not config.weights:
        return channel_stats(base)
    mean, std = statistics_of(config.network, base.shape[0])
    return torch.tensor(mean), torch.tensor(std)


def build(config: TrainConfig, channels: int, classes: int) -> FewShotMethod:
    """The method of `config` with fresh weights, or those of its file of weights.

    Raises:
        UserError: Its options do not go together.
    """
    try:
        method = MAKERS[config.method](config, channels, classes)
    except ValueError as error:
        raise UserError(f"{config.method}: {error}") from error
    if config.test.transductive is not None:
        method.transductive = config.test.transductive
    if isinstance(method, EmbeddingMethod):
        method.train_ways = config.metric.train_ways or None
    return method


def backbone(config: TrainConfig, channels: int, maps: bool = False) -> Backbone:
    """The backbone of `config`, flat or giving feature maps."""
    name, options = config.network, {"norm": config.norm}
    if is_external(name):
        return Extractor(build_external(name, channels, config.image.size, IMAGENET_CLASSES, config.weights))
    if name.startswith("conv"):
        options |= {"hidden": config.hidden}
    if maps and name == "conv4":
        return build_backbone("conv4_maps", channels, config.image.size, **options)
    return build_backbone(name, channels, config.image.size, flat=not maps, **options)


def _classifier(config: TrainConfig, channels: int, zero_head: bool = False) -> Classifier:
    return Classifier(backbone(config, channels), config.ways, zero_head=zero_head)


def _inner_options(config: TrainConfig) -> dict[str, Any]:
    inner = config.inner
    return {
        "inner_lr": inner.lr,
        "inner_steps": inner.steps,
        "test_inner_steps": inner.test_steps or None,
        "backend": inner.backend,
        "first_order": inner.first_order,
        "adapted": inner.adapted,
        "learn_lr": inner.learn_lr,
        "per_step_norm": inner.per_step_norm,
        "multi_step_epochs": inner.multi_step_epochs,
        "reduction": inner.reduction,
    }


def _maml(config: TrainConfig, channels: int, classes: int) -> MAML:
    return MAML(_classifier(config, channels, config.inner.zero_head), **_inner_options(config))


def _rml(config: TrainConfig, channels: int, classes: int) -> RML:
    options = asdict(config.rml)
    options["penalty"] = None if config.rml.penalty == "none" else config.rml.penalty
    return RML(_classifier(config, channels, config.inner.zero_head), **options, **_inner_options(config))


def _reptile(config: TrainConfig, channels: int, classes: int) -> Reptile:
    of = config.reptile
    inner = functools.partial(torch.optim.Adam, lr=of.lr, betas=(0.0, 0.999))
    model = _classifier(config, channels)
    return Reptile(model, of.steps, of.test_steps, inner_batch=of.batch or None, inner_optimizer=inner, carry=of.carry)


def _metalstm(config: TrainConfig, channels: int, classes: int) -> MetaLSTM:
    return MetaLSTM(_classifier(config, channels), config.metalstm.steps)


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
