"""The classifier of a run: what training, evaluation and prediction build alike."""

from __future__ import annotations

from dataclasses import dataclass

from robustvision_core.errors import UserError
from robustvision_core.networks.external import build_external
from robustvision_core.networks.names import is_external
from torch import nn

from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.networks import Normalised, Standardised, build

NETWORK = "objective.model"
"""Where a checkpoint's `step` holds the network."""


@dataclass(frozen=True)
class Classifier:
    """A new network.

    Attributes:
        network: Images in [-1, 1] to logits; scaling them as its weights want it is part of it.
        said: What should be known of its starting weights, or nothing.
    """

    network: nn.Module
    said: str = ""


def new_classifier(config: TrainConfig, channels: int, side: int, classes: int, weights: str = "") -> Classifier:
    """The classifier of `config` for square images of `side` pixels and a number of classes.

    Args:
        config: Of the run.
        channels: 1 or 3.
        side: Height and width in pixels.
        classes: K.
        weights: A file that a network of timm or torchvision starts from; empty for random weights.

    Raises:
        UserError: The network does not take such images, or the file is not of it.
    """
    if is_external(config.network):
        external = build_external(config.network, channels, side, classes, weights)
        return Classifier(Normalised(external.network, external.mean, external.std), external.said)
    try:
        network = build(config.network, channels, side, classes)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Classifier(Standardised(network) if config.standardise else network)
