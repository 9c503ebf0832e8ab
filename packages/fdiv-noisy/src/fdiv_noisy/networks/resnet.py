"""The small residual networks for 32-pixel images (He et al. 2016, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad


class Block(nn.Module):
    """3x3 convolution, batch norm, ReLU, again without the ReLU, and the input added; it has no weights of its own."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        skipped = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return self.relu(skipped + self.branch(x))


class ResNet(nn.Module):
    """Three stages of `blocks` residual blocks with 16, 32 and 64 channels: 6 * blocks + 2 layers.

    Args:
        channels: Of the images.
        num_classes: K.
        blocks: 1 is ResNet-8 (75 thousand weights), 3 is ResNet-20 (0.27 million).

    Shape:
        (B, channels, H, W) to logits (B, K).
    """

    def __init__(self, channels: int = 3, num_classes: int = 10, blocks: int = 3) -> None:
        super().__init__()
        stem = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        body = []
        for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
            body += [Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1))]
        self.features = nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))
