"""InstaAug with the location-relation parametrisation (Miao et al. 2022): a choice among fixed crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowaug.augmenter import Augmenter
from flowaug.flows.noise import uniform
from flowaug.spaces import CropSpace

GRIDS = ((16, 0.35), (8, 0.6), (1, 1.0))
"""Crops per axis and their side as a share of the image: 256 + 64 + 1 = 321 crops, as InstaAug's; its paper has sides
of 0.3 to 1, of which these are chosen here."""


def crop_table(space: CropSpace, grids: Sequence[tuple[int, float]] = GRIDS) -> Tensor:
    """w (N, 4) of square crops whose centres stand evenly in the image, row by row and grid by grid.

    Raises:
        ValueError: A side is smaller than the space's smallest, or above 1.
    """
    tables = []
    for count, side in grids:
        if not space.smallest <= side <= 1:
            raise ValueError(f"crop sides must be in [{space.smallest}, 1], got {side}")
        line = (2 * torch.arange(count) + 1) / count - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        relative = torch.stack([x, y], -1).flatten(0, 1)
        centres = relative * (1 - side)
        tables.append(space.parameters(centres, torch.full_like(centres, side)))
    return torch.cat(tables)


class LocationRelationAugmenter(Augmenter):
    """One of 321 fixed crops, its probability read off a feature map where the crop is.

    The distribution is finite: `log_prob` and `entropy` are those of a probability mass (nats, at most log 321), and
    samples have no pathwise gradient. `AugmentedClassifier.loss` sees `discrete` and takes the score function.

    Args:
        space: Crops; those of the grids must fit it.
        in_channels: Of the images.
        width: Channels of the small feature extractor.
        grids: Crops per axis, and their side; the finest is read from the finest map.

    Raises:
        ValueError: The space is not of crops, or a crop does not fit it.
    """

    discrete = True
    table: Tensor

    def __init__(
        self,
        space: CropSpace | None = None,
        in_channels: int = 3,
        width: int = 16,
        grids: Sequence[tuple[int, float]] = GRIDS,
    ) -> None:
        space = space or CropSpace()
        if not isinstance(space, CropSpace):
            raise ValueError(f"location relations are of crops: give a CropSpace, got {type(space).__name__}")
        super().__init__(space)
        self.grids = tuple(grids)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, padding=1),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU()) for _ in self.grids
        )
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 1, 1) for _ in self.grids)
        self.register_buffer("table", crop_table(space, self.grids), persistent=False)

    def log_mass(self, x: Tensor) -> Tensor:
        """Log-probabilities (B, N) of the crops in the order of `crop_table`."""
        features, scores = self.stem(x), []
        for (count, _), stage, head in zip(self.grids, self.stages, self.heads, strict=True):
            features = F.adaptive_avg_pool2d(stage(features), count)
            scores.append(head(features).flatten(1))
        return torch.cat(scores, 1).float().log_softmax(1)

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """w (B, n, 4) without gradient, and log-probabilities (B, n) with it."""
        log_mass = self.log_mass(x)
        with torch.no_grad():
            cumulated = log_mass.exp().cumsum(1)
            u = uniform((x.shape[0], n), cumulated, generator)
            chosen = torch.searchsorted(cumulated, u * cumulated[:, -1:], right=True).clamp_max(len(self.table) - 1)
        return self.table[chosen], log_mass.gather(1, chosen)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        """Log-probabilities (B, S) of crops w (B, S, 4); -inf where w is none of them."""
        distance = (w[..., None, :] - self.table).abs().amax(-1)
        least, nearest = distance.min(-1)
        return self.log_mass(x).gather(1, nearest).masked_fill(least > 1e-4, -torch.inf)

    def entropy(self, x: Tensor, n: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """Exact entropy (B,) in nats; the other arguments are not needed."""
        log_mass = self.log_mass(x)
        return -(log_mass.exp() * log_mass).sum(1)

    def most_likely(self, x: Tensor, n: int = 50) -> Tensor:
        """w (B, n, 4) of the n likeliest crops, which InstaAug averages over at test time."""
        return self.table[self.log_mass(x).topk(n, 1).indices]
