"""What brings the flow's samples into the box [-1, 1]^d: a tanh, and a rotation of the periodic coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from normflows.flows import Flow
from torch import Tensor

from flowaug.flows.circle import wrap
from flowaug.flows.layer import ContextLayer


def tanh_log_derivative(z: Tensor) -> Tensor:
    r"""$\log(1 - \tanh^2 z) = 2 (\log 2 - z - \mathrm{softplus}(-2 z))$, exact for large |z| too."""
    return 2 * (math.log(2) - z - F.softplus(-2 * z))


class TanhBox(Flow):
    """w = tanh(z) per coordinate, with the exact log-determinant (no constant inside the logarithm).

    A w within rounding of the box's edge cannot be inverted exactly: the error of z grows as eps / (1 - w^2), and at
    the edge itself w is read as the last value inside. In float64 that concerns |z| above 12 or so, in float32 above
    6: the rare tails of a Student's t, whose log-density is exact where it comes with the sample, not where recomputed.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """w (..., d) and the log-determinant (...)."""
        return torch.tanh(z), tanh_log_derivative(z).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (..., d) of w, and the log-determinant (...)."""
        edge = 1 - torch.finfo(z.dtype).eps
        inside = torch.atanh(z.clamp(-edge, edge))
        return inside, -tanh_log_derivative(inside).sum(-1)


class CircularShift(ContextLayer):
    """Periodic coordinates rotated by a phase read from the context: a bijection of the circle, log-determinant 0.

    The tanh leaves a seam where its ends meet. The phase puts that seam wherever the image needs no density, instead
    of always at ±1.

    Args:
        periodic: Per coordinate, whether it is.
        context_dim: Size of the context.
    """

    places: Tensor
    periodic: Tensor

    def __init__(self, periodic: Sequence[bool], context_dim: int) -> None:
        super().__init__(context_dim, sum(periodic))
        with torch.no_grad():
            self.context.weight.mul_(0.01)
            self.context.bias.zero_()
        places = torch.zeros(sum(periodic), len(periodic))
        places[torch.arange(sum(periodic)), [k for k, circular in enumerate(periodic) if circular]] = 1
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("periodic", torch.tensor(list(periodic)), persistent=False)

    def transform(self, z: Tensor, term: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """w (..., d) moved by the phases (..., periodic coordinates)."""
        phases = term @ self.places
        moved = torch.where(self.periodic, wrap(z - phases if inverse else z + phases), z)
        return moved, torch.zeros_like(moved[..., 0])
