"""The classifier and augmenter that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from robustvision_core.data import ImageSet, channel_stats
from robustvision_core.errors import UserError
from torch import nn

from flowaug.augmenter import Augmenter, FlowAugmenter
from flowaug.baselines import (
    AugerinoAugmenter,
    IdentityAugmenter,
    LocationRelationAugmenter,
    MeanFieldAugmenter,
    PolicyAugmenter,
    PSTNAugmenter,
)
from flowaug.classifier import AugmentedClassifier
from flowaug.cli.recipes import TrainConfig
from flowaug.entropy_control import EntropyController, PIDEntropyController
from flowaug.flows import FlowSpec
from flowaug.networks import SimpleConv, Standardise, build
from flowaug.spaces import AffineSpace, CropSpace, Space

CONTEXT = 32  # numbers that the encoder gives per image, as published


def make_model(config: TrainConfig, data: ImageSet) -> AugmentedClassifier:
    """Classifier and augmenter for images in [0, 1], standardised inside both networks as `data` asks for.

    Raises:
        UserError: They cannot be had for such images.
    """
    channels, height, width = data.shape
    if height != width:
        raise UserError(f"{config.data} has images of {height}x{width} pixels: the networks take square ones")
    standardise = Standardise(*channel_stats(data))
    try:
        classifier = nn.Sequential(standardise, build(config.network, channels, height, data.num_classes))
        augmenter = make_augmenter(config, channels, standardise)
    except (ValueError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    aggregate = "prob_mean" if config.augmenter == "pstn" else config.aggregate
    return AugmentedClassifier(
        classifier, augmenter, config.views, config.test_views, aggregate, config.include_original
    )


def make_space(config: TrainConfig) -> Space:
    """The transforms of `config`."""
    if config.space == "crop":
        return CropSpace(padding=config.padding)
    return AffineSpace(
        config.dims, trans_scale=config.trans_scale, linear_scale=config.linear_scale, padding=config.padding
    )


def make_augmenter(config: TrainConfig, channels: int, standardise: Standardise) -> Augmenter:
    """The augmenter of `config`, for images of so many channels."""
    space = make_space(config)

    def encoder() -> nn.Module:
        return nn.Sequential(standardise, SimpleConv(channels, CONTEXT, 8))

    makers: dict[str, Callable[[], Augmenter]] = {
        "flow": lambda: FlowAugmenter(space, encoder(), make_flow(config), context_dim=CONTEXT),
        "augerino": lambda: AugerinoAugmenter(space),
        "instaaug": lambda: MeanFieldAugmenter(space, encoder(), context_dim=CONTEXT),
        "instaaug-lrp": lambda: LocationRelationAugmenter(CropSpace(padding=config.padding), channels),
        "pstn": lambda: PSTNAugmenter(space, encoder(), context_dim=CONTEXT),
        "randaugment": lambda: PolicyAugmenter("randaugment"),
        "trivialaugment": lambda: PolicyAugmenter("trivialaugment"),
        "none": IdentityAugmenter,
    }
    return makers[config.augmenter]()


def make_flow(config: TrainConfig) -> FlowSpec:
    """What the flow of `config` is made of."""
    return FlowSpec(
        config.layers,
        config.width,
        config.components,
        config.base,
        scale=config.start_scale,
        spread=config.spread,
        gradient=config.gradient,
        seed=config.seed,
    )


def make_controller(config: TrainConfig) -> EntropyController | PIDEntropyController | None:
    """What moves alpha, or None where it is constant.

    Raises:
        UserError: Its band or limits are empty.
    """
    low, high = config.entropy
    try:
        if config.controller == "band":
            return EntropyController(low, high, config.alpha, config.alpha_limits)
        if config.controller == "pid":
            return PIDEntropyController(low, high, config.alpha_limits, alpha=config.alpha)
    except ValueError as error:
        raise UserError(f"--controller {config.controller}: {error}") from error
    return None


def zero_of(module: nn.Module) -> torch.Tensor:
    """0, with a gradient of 0 to every parameter: processes that train together must agree on who has one."""
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum() * 0
