"""The uniform distribution on boxes of a centre and sides: samples with their gradient, and its density."""

from __future__ import annotations

import torch
from torch import Tensor

from flowaug.flows.noise import uniform


def draw_uniform(
    centre: Tensor, width: Tensor, n: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """n samples (B, n, d) of boxes with centres and sides (B, d), with gradient, and their log-densities (B, n)."""
    shape = (centre.shape[0], n, centre.shape[-1])
    u = uniform(shape, centre, generator) - 0.5
    return centre[:, None] + u * width[:, None], -width.log().sum(-1, keepdim=True).expand(shape[:2])


def uniform_log_prob(w: Tensor, centre: Tensor, width: Tensor) -> Tensor:
    """Log-densities (...) of w (..., d) in boxes of centres and sides (..., d); -inf outside."""
    slack = 8 * torch.finfo(w.dtype).eps  # a sample at the very edge stays inside after rounding
    inside = ((w - centre).abs() <= width / 2 * (1 + slack) + slack).all(-1)
    return torch.where(inside, -width.log().sum(-1), -torch.inf)
