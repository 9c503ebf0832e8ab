"""Coupling layers given a context: affine (RealNVP) and rational-quadratic splines (through normflows)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from torch import Tensor, nn

from flowaug.flows.layer import ContextLayer, faint_linear, soft_clamp


class Coupling(ContextLayer):
    """Some coordinates of z change, by parameters that a two-layer perceptron reads from the others and the context.

    Fixed index sets take the place of permutation layers between couplings: nothing is moved about.

    Args:
        dim: d, at least 1. With one coordinate the parameters come from the context alone.
        context_dim: Size of the context.
        moved: Indices of the coordinates that change, at least one.
        width: Hidden units.
        parameters: Numbers per changed coordinate.

    Raises:
        ValueError: `moved` is empty or has an index outside 0..d-1.
    """

    kept: Tensor
    moved: Tensor

    def __init__(self, dim: int, context_dim: int, moved: Sequence[int], width: int, parameters: int) -> None:
        super().__init__(context_dim, width)
        if not moved or not set(moved) <= set(range(dim)):
            raise ValueError(f"moved must have indices of 0..{dim - 1}, at least one, got {list(moved)}")
        kept = [k for k in range(dim) if k not in moved]
        self.halves = (tuple(kept), tuple(moved))  # what the two buffers hold, without waiting for their device
        self.inner = nn.Linear(len(kept), width, bias=False) if kept else None
        self.outer = faint_linear(width, len(moved) * parameters)  # near the identity at first
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)
        self.register_buffer("moved", torch.tensor(list(moved)))  # in the state: the weights belong to these
        self.register_load_state_dict_pre_hook(_hand_structure)

    def take_structure(self, moved: Tensor) -> None:
        """Move the coordinates `moved` from now on, as many as before."""
        self.moved.copy_(moved)
        chosen = self.moved.tolist()
        rest = [k for k in range(len(self.kept) + len(self.moved)) if k not in chosen]
        self.kept.copy_(torch.tensor(rest, dtype=torch.long))
        self.halves = (tuple(rest), tuple(chosen))


def _hand_structure(layer: Coupling, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before a state is loaded: the coordinates that it moves become the layer's; a former state names none."""
    held = state.setdefault(f"{prefix}moved", layer.moved)
    if held.shape == layer.moved.shape:
        layer.take_structure(held)


class AffineCoupling(Coupling):
    r"""$z' = z e^{s} + t$ with s kept in (-3, 3) smoothly: an unbounded s overflows through twelve layers.

    The arguments are those of `Coupling`, less `parameters`.
    """

    def __init__(self, dim: int, context_dim: int, moved: Sequence[int], width: int = 64) -> None:
        super().__init__(dim, context_dim, moved, width, 2)

    def stack_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of the context term, weight of `inner`, weight and bias of `outer`."""
        term, inner, outer = self.context, self.inner, self.outer
        assert inner is not None
        return term.weight, term.bias, inner.weight, outer.weight, outer.bias

    def transform(self, z: Tensor, term: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """z (..., d) given the context term (..., width); see `ContextLayer.transform`."""
        inner = None if self.inner is None else self.inner.weight
        return affine(z, term, (self.kept, self.moved), inner, self.outer.weight, self.outer.bias, inverse)


def affine(
    z: Tensor,
    term: Tensor,
    sets: tuple[Tensor, Tensor],
    inner: Tensor | None,
    outer: Tensor,
    bias: Tensor,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """What `AffineCoupling.transform` gives, from the indices that stay and those that move and the weights."""
    kept, moved = sets
    hidden = term if inner is None else term + F.linear(z.index_select(-1, kept), inner)
    raw, shift = F.linear(torch.relu(hidden), outer, bias).chunk(2, -1)
    old = z.index_select(-1, moved)
    log_scale = soft_clamp(raw, -3.0, 3.0).expand_as(old)
    new = (old - shift) * torch.exp(-log_scale) if inverse else old * torch.exp(log_scale) + shift
    log_det = log_scale.sum(-1)
    return z.index_copy(-1, moved, new), -log_det if inverse else log_det


class SplineCoupling(Coupling):
    """Monotone rational-quadratic splines on [-bound, bound], the identity outside (Durkan et al. 2019).

    The spline is normflows's. It picks values out by masks and so waits for the device in every layer, which
    `AffineCoupling` does not.

    Args:
        dim: d.
        context_dim: Size of the context.
        moved: Indices of the coordinates that change.
        width: Hidden units.
        bins: Of each spline.
        bound: Where the splines end.
    """

    order: Tensor

    def __init__(
        self,
        dim: int,
        context_dim: int,
        moved: Sequence[int],
        width: int = 64,
        bins: int = 8,
        bound: float = 3.0,
    ) -> None:
        super().__init__(dim, context_dim, moved, width, 3 * bins - 1)
        self.bins, self.bound = bins, bound
        self.register_buffer("order", torch.cat([self.kept, self.moved]).argsort(), persistent=False)
        with torch.no_grad():  # derivatives of 1 at the inner knots: the identity
            one = torch.log(torch.expm1(torch.tensor(1 - 1e-3)))
            self.outer.bias.unflatten(0, (-1, 3 * bins - 1))[:, 2 * bins :] = one

    def take_structure(self, moved: Tensor) -> None:
        """See `Coupling.take_structure`."""
        super().take_structure(moved)
        self.order.copy_(torch.cat([self.kept, self.moved]).argsort())

    def transform(self, z: Tensor, term: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """z (..., d) given the context term (..., width); see `ContextLayer.transform`."""
        fixed, changing = z.index_select(-1, self.kept), z.index_select(-1, self.moved)
        hidden = term if self.inner is None else term + self.inner(fixed)
        raw = self.outer(torch.relu(hidden)).unflatten(-1, (changing.shape[-1], -1))
        widths, heights, slopes = raw.expand(*changing.shape, -1).split([self.bins, self.bins, self.bins - 1], -1)
        changed, log_det = unconstrained_rational_quadratic_spline(
            changing, widths, heights, slopes, inverse=inverse, tails="linear", tail_bound=self.bound
        )
        return torch.cat([fixed, changed], -1).index_select(-1, self.order), log_det.sum(-1)


def alternating_sets(dim: int, layers: int, generator: torch.Generator | None = None) -> list[list[int]]:
    """Index sets for a stack of couplings: random halves, each followed by its complement.

    Two layers in a row change every coordinate once. Permutations drawn independently, as published, leave some
    coordinate of three unchanged through four layers more often than not.

    Args:
        dim: d.
        layers: How many sets.
        generator: Where the random halves come from.

    Returns:
        `layers` lists of indices; all [0] where d = 1.
    """
    if dim == 1:
        return [[0]] * layers
    sets: list[list[int]] = []
    while len(sets) < layers:
        order = torch.randperm(dim, generator=generator).tolist()
        sets += [sorted(order[: dim // 2]), sorted(order[dim // 2 :])]
    return sets[:layers]
