"""The small convolutional network of the toy experiments: classifier, and pose encoder of the flow."""

from __future__ import annotations

from torch import Tensor, nn


class SimpleConv(nn.Module):
    """Four 3x3 convolutions of c, 2c, 4c and 8c channels with ReLU, pooled to one value per channel, one linear layer.

    As the paper's five-layer pose encoder: c = 8 with 32 outputs; as its classifier of 32-pixel sprites: c = 32.

    Args:
        channels: Of the images.
        outputs: Numbers given per image.
        width: c.

    Shape:
        (B, channels, H, W), H and W at least 8, to (B, outputs).
    """

    def __init__(self, channels: int = 3, outputs: int = 32, width: int = 8) -> None:
        super().__init__()
        self.channels = channels
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for stage in range(4):
            layers += [nn.Conv2d(sizes[stage], sizes[stage + 1], 3, padding=1), nn.ReLU()]
            if stage:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, outputs).

        Raises:
            ValueError: Images have other channels, or fewer than 8 pixels a side.
        """
        if images.shape[1] != self.channels:
            raise ValueError(
                f"expected images of {self.channels} channels, got {tuple(images.shape)}: give the number of channels "
                "(in_channels) where the network is made"
            )
        if min(images.shape[-2:]) < 8:
            raise ValueError(
                f"expected images of at least 8x8 pixels, got {tuple(images.shape)}: the network halves them three "
                "times; enlarge them or give an encoder of your own"
            )
        return self.head(self.features(images))
