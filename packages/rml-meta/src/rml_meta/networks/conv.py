"""The small convolutional backbones of few-shot work."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rml_meta.networks.layers import Backbone, Norm, init_conv, make_norm

LARGEST_MAP = 5  # what 84 pixels come to: larger images are averaged down to it, and keep its number of features


class ConvNet(Backbone):
    """Blocks of 3x3 convolution, norm and ReLU, some with 2x2 max pooling.

    Args:
        channels: Of the images.
        image_size: Height and width in pixels that the network is made for; others are averaged to its last map.
        pool: One a block: whether it pools. A map too small to pool stays.
        hidden: Channels of every block.
        norm: `batch`, `group` or `none`.
        padding: One a block, of the convolution.
        flat: Give features (B, D) rather than maps (B, C, H, W).
        largest_map: Maps above this side are averaged down to it; None leaves them.
        strided: Halve by convolutions of stride 2 in place of pooling.

    Raises:
        ValueError: Image or numbers are too small, or `pool` and `padding` differ in length.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        pool: Sequence[bool],
        *,
        hidden: int = 64,
        norm: Norm = "batch",
        padding: Sequence[int] | None = None,
        flat: bool = True,
        largest_map: int | None = LARGEST_MAP,
        strided: bool = False,
    ) -> None:
        super().__init__()
        padding = [1] * len(pool) if padding is None else padding
        if len(padding) != len(pool) or min(channels, hidden, image_size) < 1:
            raise ValueError(
                f"pool and padding need one value a block and sizes must be positive, got {len(pool)} and "
                f"{len(padding)} values, channels {channels}, hidden {hidden}, image_size {image_size}"
            )
        layers: list[nn.Module] = []
        side = image_size
        for number, (pools, pad) in enumerate(zip(pool, padding, strict=True)):
            inputs = hidden if number else channels
            stride = 2 if strided and pools else 1
            layers += [nn.Conv2d(inputs, hidden, 3, stride, pad), make_norm(norm, hidden)]
            side = (side - 3 + 2 * pad) // stride + 1
            if side < 1:
                raise ValueError(f"images of {image_size} pixels are too small for block {number + 1}: pad it")
            if pools and not strided and side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            layers.append(nn.ReLU())  # after the pooling: the same numbers, a quarter of the work
        side = side if largest_map is None else min(side, largest_map)
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(side))
        self.set_output(hidden, side, flat)
        init_conv(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, channels, H, W), or maps."""
        return self.finish(self.layers(images))


def conv4(channels: int = 3, image_size: int = 84, **options: object) -> ConvNet:
    """Four blocks, all pooling: 1600 features at 84 pixels with 64 channels; options as in `ConvNet`."""
    return ConvNet(channels, image_size, [True] * 4, **options)  # pyright: ignore[reportArgumentType]


def conv4_strided(channels: int = 3, image_size: int = 28, **options: object) -> ConvNet:
    """Four blocks of stride 2 without pooling, as MAML and Reptile have on Omniglot; options as in `ConvNet`."""
    return ConvNet(channels, image_size, [True] * 4, strided=True, **options)  # pyright: ignore[reportArgumentType]


def conv6(channels: int = 3, image_size: int = 84, **options: object) -> ConvNet:
    """Six blocks, the first four pooling; options as in `ConvNet`."""
    return ConvNet(channels, image_size, [True] * 4 + [False] * 2, **options)  # pyright: ignore[reportArgumentType]


def conv4_maps(channels: int = 3, image_size: int = 84, **options: object) -> ConvNet:
    """The backbone of relation networks: two blocks pooling, without padding from 40 pixels on; maps (B, 64, 19, 19).

    That size is for 84 pixels. Options as in `ConvNet`.
    """
    padding = [0, 0, 1, 1] if image_size >= 40 else [1] * 4
    defaults = {"padding": padding, "flat": False, "largest_map": None}
    return ConvNet(channels, image_size, [True, True, False, False], **(defaults | options))  # pyright: ignore[reportArgumentType]
