"""The networks of the experiments, torch only."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pseudolabel_da.networks.inputs import Normalised, Standardised
from pseudolabel_da.networks.resnet import ResNet18
from pseudolabel_da.networks.small_cnn import SmallCNN

__all__ = ["NETWORKS", "Normalised", "ResNet18", "SmallCNN", "Standardised", "build"]

NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "cnn": lambda channels, image_size, num_classes: SmallCNN(channels, image_size, num_classes),
    "resnet18": lambda channels, image_size, num_classes: ResNet18(channels, num_classes),
}
"""Makers by name, of (channels, image size in pixels, number of classes)."""


def build(name: str, channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A network by name that takes images (B, channels, image_size, image_size) and gives logits (B, num_classes).

    Both have `features(images)`, (B, D), before a linear `head`, for `coral_loss` and `domain_loss`.

    Raises:
        ValueError: There is none of that name, or it does not take such images.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](channels, image_size, num_classes)
