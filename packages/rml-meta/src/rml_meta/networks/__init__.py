"""Backbones of few-shot work by name, and classifiers on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from rml_meta.networks.conv import ConvNet, conv4, conv4_maps, conv4_strided, conv6
from rml_meta.networks.heads import CosineLinear, cosine_logits
from rml_meta.networks.layers import Backbone, make_norm
from rml_meta.networks.resnet import ResNet, ResNet12, resnet10, resnet12, resnet18

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "conv4": conv4,
    "conv4_maps": conv4_maps,
    "conv4_strided": conv4_strided,
    "conv6": conv6,
    "resnet10": resnet10,
    "resnet12": resnet12,
    "resnet18": resnet18,
}
"""Makers by name, of (channels, image size in pixels, options `norm`, `flat` and others)."""

__all__ = [
    "BACKBONES",
    "Backbone",
    "Classifier",
    "ConvNet",
    "CosineLinear",
    "ResNet",
    "ResNet12",
    "build_backbone",
    "conv4",
    "conv4_maps",
    "conv4_strided",
    "conv6",
    "cosine_logits",
    "make_norm",
    "resnet10",
    "resnet12",
    "resnet18",
]


def build_backbone(name: str, channels: int, image_size: int, **options: Any) -> Backbone:
    """A backbone by name for images (B, channels, image_size, image_size).

    Raises:
        ValueError: There is none of that name.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name](channels, image_size, **options)


class Classifier(nn.Module):
    """A backbone and a head: what gradient-based methods adapt.

    Args:
        backbone: Images to features, whose length is its attribute `features`; set it on a module that has none.
        ways: N.
        cosine: End in a `CosineLinear` rather than a linear layer with bias 0.
        zero_head: Start the linear head at 0: no output is preferred, whatever order the classes come in.

    Raises:
        ValueError: The backbone does not say how long its features are.

    Example:
        >>> backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        >>> backbone.features = 32
        >>> model = Classifier(backbone, ways=5)
    """

    def __init__(self, backbone: Backbone, ways: int, *, cosine: bool = False, zero_head: bool = False) -> None:
        super().__init__()
        if not isinstance(getattr(backbone, "features", None), int):
            raise ValueError("the backbone does not say how long its features are: set backbone.features = 64, or so")
        self.backbone = backbone
        self.head: nn.Module = CosineLinear(backbone.features, ways) if cosine else nn.Linear(backbone.features, ways)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.bias)
            if zero_head:
                nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, N) of images (B, C, H, W)."""
        return self.head(self.backbone(images).flatten(1))
