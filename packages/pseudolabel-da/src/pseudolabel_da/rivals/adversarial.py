"""Domain-adversarial training (DANN): gradient reversal, a domain classifier and its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class GradientReversal(Function):
    """The identity whose gradient is multiplied by minus a strength; call it through `reverse_gradient`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float) -> Tensor:
        """`x` itself."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep the strength."""
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Minus the strength times the gradient."""
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """`x` of any shape, whose gradient comes back times minus `strength` (Ganin et al. 2016, eq. 10-11)."""
    return GradientReversal.apply(x, strength)  # type: ignore[return-value]  # autograd's apply is untyped


class DomainHead(nn.Module):
    """The domain classifier: two hidden layers with ReLU, one logit that is positive for the source.

    Args:
        features: Their number, d.
        hidden: Width of the hidden layers.

    Shape:
        (B, d) to (B,).
    """

    def __init__(self, features: int, hidden: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B,) of being from the source."""
        return self.layers(features)[:, 0]


def domain_loss(head: nn.Module, source: Tensor, target: Tensor, strength: float = 1.0) -> Tensor:
    """The domain classifier's loss, which the network that made the features learns to raise.

    The mean of the two domains' binary cross-entropies, so that unequal batches weigh the same. Add it to the source
    loss; take the strength from `reversal_strength`.

    Args:
        head: Features (B, d) to logits (B,) of being from the source.
        source: (n_s, d) features.
        target: (n_t, d) features.
        strength: Of the reversal.

    Returns:
        The loss, 0-dim, at least float32.

    Raises:
        ValueError: A batch is empty, or the features differ in number.
    """
    if len(source) == 0 or len(target) == 0 or source.shape[1:] != target.shape[1:]:
        raise ValueError(f"expected (n_s, d) and (n_t, d) not empty, got {tuple(source.shape)}, {tuple(target.shape)}")
    logits = head(reverse_gradient(torch.cat([source, target]), strength))
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    own, other = logits[: len(source)], logits[len(source) :]
    return (F.softplus(-own).mean() + F.softplus(other).mean()) / 2
