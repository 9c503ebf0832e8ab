"""What augmenters read an image with: a vector per image, by a small network, one of the user's, or none."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from flowaug.augmenter.base import Augmenter
from flowaug.networks.simple_conv import SimpleConv
from flowaug.spaces import Space, check_images

Encoder = Literal["simple"] | nn.Module | None


class Unconditional(nn.Module):
    """An encoder that sees nothing: zeros (B, 1), so that every image has the same distribution."""

    def forward(self, images: Tensor) -> Tensor:
        """Zeros (B, 1)."""
        return images.new_zeros(images.shape[0], 1)


def make_encoder(encoder: Encoder, in_channels: int, context_dim: int | None) -> tuple[nn.Module, int]:
    """An encoder of images and the size of what it gives: a small network, one given, or none.

    Raises:
        ValueError: The name is unknown, or `context_dim` is missing for a network given.
    """
    if encoder is None:
        return Unconditional(), 1
    if isinstance(encoder, nn.Module):
        if context_dim is None:
            raise ValueError("give context_dim, the size of the encoder's output, together with an encoder of your own")
        return encoder, context_dim
    if encoder != "simple":
        raise ValueError(f"encoder must be 'simple', a module or None, got {encoder!r}")
    size = 32 if context_dim is None else context_dim
    return SimpleConv(in_channels, size, 8), size


class EncodedAugmenter(Augmenter):
    """An augmenter whose distributions are read from the vector that an encoder gives per image.

    Args:
        space: The transforms.
        encoder: `simple`, the paper's five-layer network; a module from images (B, C, H, W) to (B, context_dim); or
            None for one distribution for all images.
        in_channels: Of the images, for the simple encoder.
        context_dim: Size of the encoder's output; 32 for the simple one.

    Raises:
        ValueError: The encoder is unknown or its size missing.
    """

    def __init__(
        self, space: Space, encoder: Encoder = "simple", *, in_channels: int = 3, context_dim: int | None = None
    ) -> None:
        super().__init__(space)
        self.encoder, self.context_dim = make_encoder(encoder, in_channels, context_dim)

    def encode(self, x: Tensor) -> Tensor:
        """Contexts (B, context_dim) of images (B, C, H, W).

        Raises:
            ValueError: x are no images that the encoder takes, or it gives something else.
        """
        check_images(x)
        context = self.encoder(x)
        if not isinstance(context, Tensor) or context.shape != (x.shape[0], self.context_dim):
            given = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
            raise ValueError(f"the encoder must give (B, context_dim), here (B, {self.context_dim}), it gave {given}")
        return context
