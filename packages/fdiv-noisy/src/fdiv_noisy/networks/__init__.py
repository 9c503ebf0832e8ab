"""The networks of the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fdiv_noisy.networks.cnn import CNN
from fdiv_noisy.networks.preact_resnet import PreActResNet18
from fdiv_noisy.networks.resnet import ResNet

__all__ = ["CNN", "NETWORKS", "PreActResNet18", "ResNet", "build"]


def _resnet50(channels: int, image_size: int, num_classes: int) -> nn.Module:
    try:
        from torchvision.models import resnet50
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('resnet50 needs an extra: pip install "fdiv-noisy[train]"') from error
    if channels != 3:
        raise ValueError(f"resnet50 needs images of 3 channels, got {channels}")
    return resnet50(num_classes=num_classes)


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "cnn": lambda channels, image_size, num_classes: CNN(channels, image_size, num_classes),
    "resnet8": lambda channels, image_size, num_classes: ResNet(channels, num_classes, blocks=1),
    "resnet20": lambda channels, image_size, num_classes: ResNet(channels, num_classes, blocks=3),
    "preact_resnet18": lambda channels, image_size, num_classes: PreActResNet18(channels, num_classes),
    "resnet50": _resnet50,
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
