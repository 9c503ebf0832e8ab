"""The published way: every sample an image of its own, its context read anew by every layer. For timing only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from flowaug.flows import ConditionalBase
from flowaug.warp import homogeneous
from torch import Tensor, nn


class PlainFlow(nn.Module):
    """Couplings whose perceptron reads half of z and the whole context, permutations between, a tanh at the end.

    Args:
        base: The base distribution.
        dim: d.
        context_dim: E.
        layers: Couplings.
        width: Hidden units.
    """

    def __init__(self, base: ConditionalBase, dim: int, context_dim: int, layers: int = 12, width: int = 64) -> None:
        super().__init__()
        self.base, self.kept = base, -(-dim // 2)
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(self.kept + context_dim, width), nn.ReLU(), nn.Linear(width, 2 * (dim - self.kept)))
            for _ in range(layers)
        )
        self.orders = [torch.randperm(dim) for _ in range(layers)]

    def sample(self, context: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """n samples per context (B, E): w (B n, d) and log-densities (B n,)."""
        repeated = context.repeat_interleave(n, 0)
        z, log_prob = self.base.draw(repeated, 1)
        z, log_prob = z[:, 0], log_prob[:, 0]
        for net, order in zip(self.nets, self.orders, strict=True):
            kept, moved = z[:, : self.kept], z[:, self.kept :]
            scale, shift = net(torch.cat([kept, repeated], 1)).chunk(2, 1)
            z = torch.cat([kept, moved * scale.exp() + shift], 1)[:, order]
            log_prob = log_prob - scale.sum(1)
        w = z.tanh()
        return w, log_prob - torch.log(1 + 1e-6 - w.square()).sum(1)


def plain_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Every view as an image of its own: images (B, C, H, W) repeated for matrices (B, S, 2, 3)."""
    batch, n = matrices.shape[:2]
    grid = F.affine_grid(matrices.flatten(0, 1), [batch * n, *images.shape[1:]], align_corners=True)
    read = F.grid_sample(images.repeat_interleave(n, 0), grid, align_corners=True)
    return read.unflatten(0, (batch, n))


def kornia_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """The same by kornia."""
    from kornia.geometry.transform import homography_warp

    batch, n = matrices.shape[:2]
    flat, size = homogeneous(matrices.flatten(0, 1)), (images.shape[-2], images.shape[-1])
    return homography_warp(images.repeat_interleave(n, 0), flat, size, align_corners=True).unflatten(0, (batch, n))
