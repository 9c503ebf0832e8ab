"""Linear layers that end a classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cosine_logits(
    features: Tensor, weight: Tensor, norm: Tensor | None = None, scale: float | Tensor = 1.0, eps: float = 1e-5
) -> Tensor:
    r"""Logits (..., N) of features (..., D): $s\, g_c \frac{x}{\|x\| + \epsilon} \cdot \frac{w_c}{\|w_c\|}$.

    Args:
        features: (..., D).
        weight: (..., N, D), a direction a class.
        norm: (..., N) learned length $g_c$ of each class, or None for the plain cosine.
        scale: s.
        eps: Keeps a zero feature finite.
    """
    unit = features / (torch.linalg.vector_norm(features, dim=-1, keepdim=True) + eps)
    logits = scale * unit @ F.normalize(weight, dim=-1).transpose(-1, -2)
    return logits if norm is None else logits * norm[..., None, :]


class CosineLinear(nn.Module):
    """A linear layer whose logits are scaled cosines (Baseline++, Chen et al. 2019).

    Args:
        features: D.
        ways: N.
        scale: Factor s of the cosines: 2 in the published code up to 200 classes, 10 above.
        learn_norm: Learn a length for each class, as that code does by weight norm, so that its logits are no plain
            cosines; it starts at the length of a fresh linear layer's row.
    """

    def __init__(self, features: int, ways: int, scale: float = 2.0, learn_norm: bool = True) -> None:
        super().__init__()
        self.scale = scale
        fresh = nn.Linear(features, ways, bias=False).weight.detach()
        self.weight = nn.Parameter(fresh.clone())
        self.norm = nn.Parameter(torch.linalg.vector_norm(fresh, dim=1)) if learn_norm else None

    def forward(self, features: Tensor) -> Tensor:
        """Logits (..., N) of features (..., D)."""
        return cosine_logits(features, self.weight, self.norm, self.scale)
