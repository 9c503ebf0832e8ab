"""The 13-layer network of Augerino's CIFAR-10 experiments."""

from __future__ import annotations

from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


class Layer13(nn.Module):
    """Three stages of three 3x3 convolutions with batch norm and ReLU, max pooling and dropout between, mean pooling.

    Args:
        channels: Of the images.
        num_classes: K.
        width: Channels of the first two convolutions; the rest have twice as many.
        dropout: Of whole channels, after the first two stages.

    Shape:
        (B, channels, H, W), H and W at least 4, to logits (B, K).
    """

    def __init__(self, channels: int = 3, num_classes: int = 10, width: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        wide = 2 * width
        self.features = nn.Sequential(
            *_block(channels, width),
            *_block(width, width),
            *_block(width, wide),
            nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
            *(layer for _ in range(3) for layer in _block(wide, wide)),
            nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
            *(layer for _ in range(3) for layer in _block(wide, wide)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(wide, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
