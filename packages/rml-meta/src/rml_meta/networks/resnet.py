"""Residual backbones of few-shot work, at any image size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rml_meta.networks.layers import Backbone, Norm, init_conv, make_norm

SMALL = 64  # below this many pixels the first layers keep the resolution


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms beside an identity or a 1x1 projection (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            make_norm(norm, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            make_norm(norm, outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _projection(inputs, outputs, stride, norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.relu(self.body(x) + self.shortcut(x))


class PoolingBlock(nn.Module):
    """Three 3x3 convolutions with norms and leaky ReLU beside a projection, then 2x2 max pooling (ResNet-12)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(3):
            layers += [nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1, bias=False)]
            layers += [make_norm(norm, outputs), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = _projection(inputs, outputs, 1, norm)
        # a map of one pixel stays
        self.end = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2, ceil_mode=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""
        return self.end(self.body(x) + self.shortcut(x))


class ResNet(Backbone):
    """Stages of basic blocks, 64 to 512 channels, and an average over the map: 512 features.

    Args:
        blocks: Number in each of the four stages.
        channels: Of the images.
        image_size: From 64 pixels on the network starts with a 7x7 convolution of stride 2 and pooling, below with a
            3x3 convolution. Any other size can be fed too.
        norm: `batch`, `group` or `none`.
        flat: Give features (B, 512) rather than maps (B, 512, H, W).
    """

    def __init__(
        self, blocks: Sequence[int], channels: int = 3, image_size: int = 84, *, norm: Norm = "batch", flat: bool = True
    ) -> None:
        super().__init__()
        large = image_size >= SMALL
        first = nn.Conv2d(channels, 64, 7, 2, 3, bias=False) if large else nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        layers = [first, make_norm(norm, 64), nn.ReLU(), nn.MaxPool2d(3, 2, 1) if large else nn.Identity()]
        side = -(-image_size // 4) if large else image_size
        inputs = 64
        for stage, count in enumerate(blocks):
            outputs = 64 * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                layers.append(BasicBlock(inputs, outputs, stride, norm))
                side, inputs = -(-side // stride), outputs
        side = 1 if flat else side
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(side))
        self.set_output(inputs, side, flat)
        init_conv(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 512) of images (B, channels, H, W), or maps."""
        return self.finish(self.layers(images))


class ResNet12(Backbone):
    """Four pooling blocks of 64, 160, 320 and 640 channels, and an average over the map: 640 features.

    Args:
        channels: Of the images.
        image_size: Height and width in pixels, for `map_shape`; any other size can be fed too.
        norm: `batch`, `group` or `none`.
        flat: Give features (B, 640) rather than maps (B, 640, H, W).
        widths: Channels of the blocks.
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 84,
        *,
        norm: Norm = "batch",
        flat: bool = True,
        widths: Sequence[int] = (64, 160, 320, 640),
    ) -> None:
        super().__init__()
        blocks, side = [], image_size
        for inputs, outputs in zip((channels, *widths), widths, strict=False):
            blocks.append(PoolingBlock(inputs, outputs, norm))
            side = -(-side // 2)
        side = 1 if flat else side
        self.layers = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(side))
        self.set_output(widths[-1], side, flat)
        init_conv(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 640) of images (B, channels, H, W), or maps."""
        return self.finish(self.layers(images))


def resnet10(channels: int = 3, image_size: int = 84, **options: object) -> ResNet:
    """One basic block a stage; options as in `ResNet`."""
    return ResNet((1, 1, 1, 1), channels, image_size, **options)  # pyright: ignore[reportArgumentType]


def resnet12(channels: int = 3, image_size: int = 84, **options: object) -> ResNet12:
    """Options as in `ResNet12`."""
    return ResNet12(channels, image_size, **options)  # pyright: ignore[reportArgumentType]


def resnet18(channels: int = 3, image_size: int = 84, **options: object) -> ResNet:
    """Two basic blocks a stage; options as in `ResNet`."""
    return ResNet((2, 2, 2, 2), channels, image_size, **options)  # pyright: ignore[reportArgumentType]


def _projection(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), make_norm(norm, outputs))
