"""HRNet with a heat-map head (Sun et al. 2019), in the three-stage form of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from diffpnp_pose.networks.blocks import Bottleneck, Exchange, activated


@dataclass(frozen=True)
class HRNetSize:
    """Sizes of an HRNet.

    Attributes:
        width: channels of the branch at stride 4; branch k has `2^k` times as many.
        modules: exchange modules of every stage after the first; stage s has s branches.
        blocks: residual units per branch and module.
        stem: channels of the two strided convolutions.
        first_blocks: bottlenecks of the first stage, which end in four times the stem's channels.
    """

    width: int = 48
    modules: tuple[int, ...] = (1, 4)
    blocks: int = 4
    stem: int = 64
    first_blocks: int = 4


HRNET_SIZES = {
    "w48": HRNetSize(),
    "w32": HRNetSize(width=32),
    "w18": HRNetSize(width=18),
    "tiny": HRNetSize(width=16, modules=(1, 1), blocks=1, stem=32, first_blocks=1),
    "micro": HRNetSize(width=8, modules=(1, 1), blocks=1, stem=16, first_blocks=1),
}


class HRNetBackbone(nn.Module):
    """Stem, first stage and exchange stages; gives features at a quarter of the image's resolution.

    Args:
        size: the sizes.
    """

    def __init__(self, size: HRNetSize) -> None:
        super().__init__()
        wide = 4 * size.stem
        self.stem = nn.Sequential(activated(3, size.stem, 3, 2), activated(size.stem, size.stem, 3, 2))
        blocks = [Bottleneck(size.stem if i == 0 else wide, wide) for i in range(size.first_blocks)]
        self.first = nn.Sequential(*blocks)
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        previous = [wide]
        for stage, modules in enumerate(size.modules):
            channels = [size.width * 2**k for k in range(stage + 2)]
            self.transitions.append(_transition(previous, channels))
            last = stage == len(size.modules) - 1
            self.stages.append(
                nn.ModuleList(
                    Exchange(channels, size.blocks, outputs=1 if last and m == modules - 1 else None)
                    for m in range(modules)
                )
            )
            previous = channels

    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, width, H / 4, W / 4)` of images `(B, 3, H, W)`."""
        features = [self.first(self.stem(images))]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            paths: list[nn.Module] = list(transition.children())
            features = [path(features[min(k, len(features) - 1)]) for k, path in enumerate(paths)]
            for module in stage.children():
                features = module(features)
        return features[0]


def _transition(previous: list[int], channels: list[int]) -> nn.ModuleList:
    """Bring every branch to its channels; the new, coarsest branch comes from the last one."""
    paths: list[nn.Module] = []
    for k, wanted in enumerate(channels):
        if k >= len(previous):
            paths.append(activated(previous[-1], wanted, 3, 2))
        else:
            paths.append(nn.Identity() if previous[k] == wanted else activated(previous[k], wanted))
    return nn.ModuleList(paths)


class HRNet(nn.Module):
    """Keypoint heat-maps at a quarter of the image's resolution.

    Args:
        keypoints: number of maps.
        size: a name of `HRNET_SIZES` or the sizes themselves. "w48" is the paper's network (three stages with 1 and 4
            modules); "tiny" and "micro" train on a CPU.

    Raises:
        ValueError: the size is unknown.
    """

    def __init__(self, keypoints: int = 9, size: str | HRNetSize = "w48") -> None:
        super().__init__()
        sizes = size_of(size)
        self.backbone = HRNetBackbone(sizes)
        self.head = nn.Conv2d(sizes.width, keypoints, 1)
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images to logits.

        Args:
            images: `(B, 3, H, W)`, H and W multiples of 4 (of 16 to keep all branches aligned).

        Returns:
            One tensor of logits, `(B, keypoints, H / 4, W / 4)`, in a list like the other networks'.
        """
        return [self.head(self.backbone(images))]

    def pose_maps(self, outputs: list[Tensor]) -> Tensor:
        """The logits that keypoints are read from, in training as in evaluation."""
        return outputs[-1]


def size_of(size: str | HRNetSize) -> HRNetSize:
    """The sizes of this name, or the given sizes."""
    if isinstance(size, HRNetSize):
        return size
    if size not in HRNET_SIZES:
        raise ValueError(f"size must be one of {', '.join(HRNET_SIZES)} or an HRNetSize, got {size!r}")
    return HRNET_SIZES[size]


def initialise(network: nn.Module) -> None:
    """Normal weights of deviation 0.001 in convolutions, as in the published HRNet; normalisations are left alone."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def hrnet(keypoints: int = 9, size: str | HRNetSize = "w48") -> HRNet:
    """An `HRNet`; see there."""
    return HRNet(keypoints, size)
