"""What brings the flow's samples into the box [-1, 1]^d: a tanh per coordinate, and a phase of the periodic ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from normflows.flows import Flow
from torch import Tensor

from flowaug.flows.circle import wrap
from flowaug.flows.layer import ContextLayer, faint_linear


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
    """Periodic coordinates moved by a phase that is one linear function of the context; log-determinant 0.

    The tanh leaves a seam where its ends meet. The phase puts that seam wherever the image needs no density, instead
    of always at ±1. A linear phase cannot wind: along a closed path of images it comes back to where it began, so no
    pose can follow an image all the way round the circle. `WindingShift` can.

    Args:
        periodic: Per coordinate, whether it is.
        context_dim: Size of the context.
        readouts: Linear functions of the context per periodic coordinate.
    """

    places: Tensor
    periodic: Tensor

    def __init__(self, periodic: Sequence[bool], context_dim: int, readouts: int = 1) -> None:
        count = sum(periodic)
        super().__init__(context_dim, readouts * count)
        self.context = faint_linear(context_dim, readouts * count)
        places = torch.zeros(count, len(periodic))
        places[torch.arange(count), [k for k, circular in enumerate(periodic) if circular]] = 1
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("periodic", torch.tensor(list(periodic)), persistent=False)

    def phases(self, term: Tensor) -> Tensor:
        """Phases (..., periodic coordinates), in half circles, of the context term (..., features)."""
        return term

    def transform(self, z: Tensor, term: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """w (..., d) moved by the phases of the context term (..., features)."""
        phases = self.phases(term) @ self.places
        moved = torch.where(self.periodic, wrap(z - phases if inverse else z + phases), z)
        return moved, torch.zeros_like(moved[..., 0])


class WindingShift(CircularShift):
    r"""Periodic coordinates moved by the angle of two linear functions of the context; log-determinant 0.

    $\phi = \mathrm{atan2}(a, b) / \pi$ follows an image round the whole circle without a tear: where the context goes
    once about the origin of (a, b), so does the phase. The phase does not see the length of (a, b), which starts small
    for that reason, at a = 0, b = 0.01: all phases are close to 0, and a few steps of Adam bring them anywhere.

    Args:
        periodic: Per coordinate, whether it is.
        context_dim: Size of the context.
    """

    def __init__(self, periodic: Sequence[bool], context_dim: int) -> None:
        super().__init__(periodic, context_dim, readouts=2)
        with torch.no_grad():
            self.context.weight.mul_(0.1)
            self.context.bias[sum(periodic) :] = 0.01

    def phases(self, term: Tensor) -> Tensor:
        """See `CircularShift.phases`."""
        sine, cosine = term.chunk(2, -1)
        return torch.atan2(sine, cosine) / math.pi
