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
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for stage in range(4):
            layers += [nn.Conv2d(sizes[stage], sizes[stage + 1], 3, padding=1), nn.ReLU()]
            if stage:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, outputs)."""
        return self.head(self.features(images))
