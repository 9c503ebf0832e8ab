"""Networks that take images in [-1, 1], as augmentations have them, and bring them to a scale of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scaled(nn.Module):
    """A network behind a change of its images; what it has besides, `features` and `head`, is there as well.

    Args:
        network: Takes changed images (B, C, H, W); `features(images)` and a linear `head` where it has them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def head(self) -> nn.Module:
        """The network's last layer."""
        return self.network.get_submodule("head")

    def scale(self, images: Tensor) -> Tensor:
        """The images (B, C, H, W) as the network takes them."""
        return images

    def features(self, images: Tensor) -> Tensor:
        """(B, D), what the head takes."""
        return self.network.features(self.scale(images))  # pyright: ignore[reportCallIssue]  # as the class says

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.network(self.scale(images))


class Normalised(Scaled):
    """A network whose weights know images as `(pixel - mean) / std`, given them in [-1, 1].

    Args:
        network: As in `Scaled`.
        mean: Of each channel on the scale 0..1, (C,).
        std: As `mean`, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(network)
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def scale(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] to those the network was trained on."""
        return ((images + 1) / 2 - self.mean) / self.std


class Standardised(Scaled):
    """A network to which every image has mean 0 and about standard deviation 1, over all of its pixels and channels.

    So brightness and contrast, in which domains differ, do not reach it.

    Args:
        network: As in `Scaled`.
        floor: Added to the standard deviation, so that an empty image is not blown up.
    """

    def __init__(self, network: nn.Module, floor: float = 0.1) -> None:
        super().__init__(network)
        self.floor = floor

    def scale(self, images: Tensor) -> Tensor:
        """Each image less its mean, over its standard deviation."""
        centred = images - images.mean((1, 2, 3), keepdim=True)
        return centred / (images.std((1, 2, 3), keepdim=True) + self.floor)
