"""HigherHRNet (Cheng et al. 2020): HRNet with a second, twice finer heat-map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffpnp_pose.networks.blocks import BasicBlock
from diffpnp_pose.networks.hrnet import HRNetBackbone, HRNetSize, initialise, size_of


class HigherHRNet(nn.Module):
    """Heat-maps at a quarter and at half of the image's resolution, both supervised, aggregated for evaluation.

    Features and coarse logits go together through a transposed convolution, residual units and a second head.

    Args:
        keypoints: number of maps.
        size: as in `HRNet`.
        blocks: residual units after the transposed convolution.

    Raises:
        ValueError: the size is unknown.
    """

    def __init__(self, keypoints: int = 9, size: str | HRNetSize = "w48", blocks: int = 4) -> None:
        super().__init__()
        sizes = size_of(size)
        width = sizes.width
        self.backbone = HRNetBackbone(sizes)
        self.head = nn.Conv2d(width, keypoints, 1)
        self.finer = nn.Sequential(
            nn.ConvTranspose2d(width + keypoints, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *(BasicBlock(width) for _ in range(blocks)),
        )
        self.fine_head = nn.Conv2d(width, keypoints, 1)
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images to logits at both scales.

        Args:
            images: `(B, 3, H, W)`, H and W multiples of 4.

        Returns:
            Logits `(B, keypoints, H / 4, W / 4)` and `(B, keypoints, H / 2, W / 2)`.
        """
        features = self.backbone(images)
        coarse = self.head(features)
        return [coarse, self.fine_head(self.finer(torch.cat([features, coarse], 1)))]

    def pose_maps(self, outputs: list[Tensor]) -> Tensor:
        """In training the coarse logits (as published); in evaluation those of all scales, aggregated."""
        return outputs[0] if self.training else aggregate(outputs)


def aggregate(outputs: list[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Mean of logits of several scales, resized bilinearly.

    The configuration of the paper aggregates at the image's resolution, the published HigherHRNet at that of its
    largest output.

    Args:
        outputs: logits `(B, J, H_s, W_s)`.
        size: `(H, W)` to aggregate at; the largest output's when None.

    Returns:
        Logits `(B, J, H, W)`.
    """
    size = size or (max(o.shape[-2] for o in outputs), max(o.shape[-1] for o in outputs))
    resized = [nn.functional.interpolate(o, size=size, mode="bilinear", align_corners=False) for o in outputs]
    return torch.stack(resized).mean(0)


def higher_hrnet(keypoints: int = 9, size: str | HRNetSize = "w48") -> HigherHRNet:
    """A `HigherHRNet`; see there."""
    return HigherHRNet(keypoints, size)
