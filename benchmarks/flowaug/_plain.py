"""The published way: every sample an image of its own, its context read anew by every layer. For comparison only."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from flowaug import ConditionalFlow, FlowSpec
from flowaug.flows import ConditionalBase, Coupling
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


def densities(seeds: int = 4) -> dict[str, list[float]]:
    """Held-out negative log-likelihood in nats of a curved conditional density, by permutations and layers; per seed.

    `published` permutes coordinates anew before every layer, ours halves them and takes the other half next.
    """
    kinds = [("published", 12), ("ours", 12), ("ours", 10), ("ours", 8)]
    return {f"{kind}, {layers} layers": [fitted(kind, layers, seed) for seed in range(seeds)] for kind, layers in kinds}


def fitted(kind: str, layers: int, seed: int, steps: int = 500) -> float:
    """The likelihood after a training by maximum likelihood."""
    torch.manual_seed(seed)
    flow = ConditionalFlow(6, 4, FlowSpec(layers=layers, width=32, scale=0.3, seed=seed))
    if kind == "published":
        for layer in flow.layers:
            cast("Coupling", layer).take_structure(torch.randperm(6)[:3].sort().values)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        w, context = curved(256)
        optimizer.zero_grad()
        (-flow.log_prob(w, context).mean()).backward()
        optimizer.step()
        scheduler.step()
    torch.manual_seed(1000)
    w, context = curved(8000)
    with torch.no_grad():
        return round(-float(flow.log_prob(w, context).mean()), 4)


def curved(n: int) -> tuple[Tensor, Tensor]:
    """n samples (n, 1, 6) in the box of a density that bends, with their contexts (n, 4)."""
    fixed = torch.Generator().manual_seed(5)
    across, along, by = (torch.randn(rows, 6, generator=fixed) for rows in (6, 6, 4))
    context, z = torch.randn(n, 4), torch.randn(n, 6)
    shift = context @ by / 2
    return torch.tanh(0.3 * (z @ across / 2 + torch.sin(z @ along + shift) + shift))[:, None], context


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
