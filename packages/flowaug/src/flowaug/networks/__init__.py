"""The networks of the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from flowaug.networks.fixup_resnet import FixupResNet
from flowaug.networks.layer13 import Layer13
from flowaug.networks.lenet import LeNetTanh
from flowaug.networks.mlp import MLP
from flowaug.networks.preact_resnet import PreActResNet18
from flowaug.networks.simple_conv import SimpleConv
from flowaug.networks.standardise import Standardise

__all__ = [
    "MLP",
    "NETWORKS",
    "FixupResNet",
    "Layer13",
    "LeNetTanh",
    "PreActResNet18",
    "SimpleConv",
    "Standardise",
    "build",
]

NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "fixup_resnet8": lambda channels, image_size, num_classes: FixupResNet(channels, num_classes),
    "layer13": lambda channels, image_size, num_classes: Layer13(channels, num_classes),
    "lenet": lambda channels, image_size, num_classes: LeNetTanh(channels, num_classes, image_size),
    "mlp": lambda channels, image_size, num_classes: MLP(channels, num_classes, image_size),
    "preact_resnet18": lambda channels, image_size, num_classes: PreActResNet18(
        channels, num_classes, 2 if image_size > 32 else 1
    ),
    "simple_conv": lambda channels, image_size, num_classes: SimpleConv(channels, num_classes, 32),
    "simple_conv8": lambda channels, image_size, num_classes: SimpleConv(channels, num_classes, 8),
}
"""Makers by name, of (channels, image size in pixels, number of classes)."""


def build(name: str, channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A network by name that takes images (B, channels, image_size, image_size) and gives logits (B, num_classes).

    Raises:
        ValueError: There is none of that name, or it does not take such images.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](channels, image_size, num_classes)
