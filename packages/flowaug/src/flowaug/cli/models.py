"""The classifier and augmenter that a configuration asks for, or that a run folder holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from robustvision_core.data import ImageSet, channel_stats
from robustvision_core.errors import UserError
from robustvision_core.networks.external import build_external
from robustvision_core.networks.names import is_external
from robustvision_core.run.options import EvaluateOptions
from robustvision_core.run.runtime import Runtime
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
from flowaug.cli.data import Sets, load
from flowaug.cli.recipes import TrainConfig
from flowaug.flows import FlowSpec
from flowaug.networks import SimpleConv, Standardise, build
from flowaug.objective import EntropyController, PIDEntropyController
from flowaug.spaces import AffineSpace, CropSpace, Space

PROGRAM = "flowaug train"
CONTEXT = 32  # numbers that the encoder gives per image, as published


def make_model(config: TrainConfig, data: ImageSet) -> AugmentedClassifier:
    """Classifier and augmenter for images in [0, 1], standardised inside both networks as `data` asks for.

    Raises:
        UserError: They cannot be had for such images.
    """
    channels, height, width = data.shape
    if height != width:
        raise UserError(f"{config.data} has images of {height}x{width} pixels: the networks take square ones")
    return build_model(config, channels, height, data.num_classes, Standardise(*channel_stats(data)))


def start_model(config: TrainConfig, data: ImageSet) -> tuple[AugmentedClassifier, str]:
    """The model of `make_model` with the weights that it is to start from, and what should be known of them.

    Such a classifier standardises as its weights were trained; the augmenter's encoder as `data` asks for.

    Raises:
        UserError: They cannot be had for such images, or the weights are not of the network.
    """
    model = make_model(config, data)
    if not config.weights:
        return model, ""
    made = build_external(config.network, data.shape[0], data.shape[1], data.num_classes, config.weights)
    own = Standardise(torch.tensor(made.mean), torch.tensor(made.std))
    model.classifier = nn.Sequential(own, made.network)
    return model, made.said


def build_model(
    config: TrainConfig, channels: int, side: int, num_classes: int, standardise: Standardise
) -> AugmentedClassifier:
    """Classifier and augmenter for square images (channels, side, side) in [0, 1].

    Raises:
        UserError: They cannot be had for such images.
    """
    try:
        classifier = nn.Sequential(standardise, make_network(config.network, channels, side, num_classes))
        augmenter = make_augmenter(config, channels, copy.deepcopy(standardise))  # weights bring their own to the first
    except (ValueError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    aggregate = "prob_mean" if config.augmenter == "pstn" else config.objective.aggregate
    return AugmentedClassifier(
        classifier,
        augmenter,
        config.objective.views,
        config.objective.test_views,
        aggregate,
        config.objective.include_original,
    )


def make_network(name: str, channels: int, side: int, num_classes: int) -> nn.Module:
    """A network of ours, timm's or torchvision's by name, untrained: images (B, channels, side, side) to logits.

    Raises:
        ValueError: It does not take such images. A `UserError` where another library has no such network.
    """
    if is_external(name):
        return build_external(name, channels, side, num_classes).network
    return build(name, channels, side, num_classes)


def make_space(config: TrainConfig) -> Space:
    """The transforms of `config`."""
    if config.space.kind == "crop":
        return CropSpace(padding=config.space.padding)
    return AffineSpace(
        config.space.dims,
        trans_scale=config.space.trans_scale,
        linear_scale=config.space.linear_scale,
        padding=config.space.padding,
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
        "instaaug-lrp": lambda: LocationRelationAugmenter(CropSpace(padding=config.space.padding), channels),
        "pstn": lambda: PSTNAugmenter(space, encoder(), context_dim=CONTEXT),
        "randaugment": lambda: PolicyAugmenter("randaugment"),
        "trivialaugment": lambda: PolicyAugmenter("trivialaugment"),
        "none": IdentityAugmenter,
    }
    return makers[config.augmenter]()


def make_flow(config: TrainConfig) -> FlowSpec:
    """What the flow of `config` is made of."""
    flow = config.flow
    return FlowSpec(
        flow.layers,
        flow.width,
        flow.components,
        flow.base,
        scale=flow.start_scale,
        spread=flow.spread,
        gradient=flow.gradient,
        seed=config.seed,
        phase=flow.phase,
    )


def make_controller(config: TrainConfig) -> EntropyController | PIDEntropyController | None:
    """What moves alpha, or None where it is constant.

    Raises:
        UserError: Its band or limits are empty.
    """
    low, high = config.controller.entropy
    try:
        if config.controller.kind == "band":
            return EntropyController(low, high, config.objective.alpha, config.controller.alpha_limits)
        if config.controller.kind == "pid":
            return PIDEntropyController(low, high, config.controller.alpha_limits, alpha=config.objective.alpha)
    except ValueError as error:
        raise UserError(f"--controller {config.controller.kind}: {error}") from error
    return None


def zero_of(module: nn.Module) -> torch.Tensor:
    """0, with a gradient of 0 to every parameter: processes that train together must agree on who has one."""
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum() * 0


@dataclass(frozen=True)
class Trained:
    """A run that was read back."""

    config: TrainConfig
    sets: Sets
    model: AugmentedClassifier


def read_run(options: EvaluateOptions, runtime: Runtime) -> Trained:
    """The model of a run folder on the runtime's device, in evaluation mode, with its data.

    Raises:
        UserError: The folder holds no run, or its data cannot be had.
    """
    config = options.trained(TrainConfig, PROGRAM)
    sets = load(config)
    model = make_model(config, sets.train).to(runtime.device).eval()
    options.load_into(model, "model")
    return Trained(config, sets, model)


def can_align(config: TrainConfig) -> bool:
    """Whether a run has transforms whose steps compose."""
    return config.learns and config.space.kind == "affine"
