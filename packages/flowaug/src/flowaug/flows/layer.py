"""Flow layers that read their context through one linear map, so that the maps of all layers are one product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor, nn


class ContextLayer(Flow, ABC):
    """A normflows layer z -> z' given a context, whose context term is computed apart.

    `forward(z, context)` and `inverse(z, context)` are those of normflows, for z (..., d) and context (..., E).
    A subclass writes `transform(z, term, inverse)`, where the term (..., features) is `self.context(context)`: a flow
    that draws S samples of an image computes the terms of all its layers in one product, once per image.

    Args:
        context_dim: E.
        features: Size of the context term.
    """

    def __init__(self, context_dim: int, features: int) -> None:
        super().__init__()
        self.context = nn.Linear(context_dim, features)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The transformed z (..., d) and the log-determinant (...)."""
        return self.transform(z, self.context(context))

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The inverse of `forward`, and its log-determinant (...)."""
        return self.transform(z, self.context(context), inverse=True)

    @abstractmethod
    def transform(self, z: Tensor, term: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The transform or its inverse given the context term, and its log-determinant."""


def context_terms(layers: Sequence[ContextLayer], context: Tensor) -> tuple[Tensor, ...]:
    """Every layer's context term for contexts (..., E), by one product with all their weights."""
    weight = torch.cat([layer.context.weight for layer in layers])
    bias = torch.cat([layer.context.bias for layer in layers])
    sizes = [layer.context.out_features for layer in layers]
    return torch.nn.functional.linear(context, weight, bias).split(sizes, -1)


def faint_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that hardly hears its input at first: weights times 0.01, as published, and a bias of 0."""
    layer = nn.Linear(inputs, outputs, bias)
    with torch.no_grad():
        layer.weight.mul_(0.01)
        if bias:
            layer.bias.zero_()
    return layer


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """x squeezed smoothly into (low, high): slope 1 in the middle, and a gradient everywhere."""
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh((x - middle) / half)
