"""The conditional flow: a base distribution, couplings and a box, with exact log-densities both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowaug.flows import fused
from flowaug.flows.bases import ConditionalBase, MixtureBase, StudentTBase, UniformBase, WeightGradient
from flowaug.flows.box import CircularShift, TanhBox, WindingShift
from flowaug.flows.coupling import AffineCoupling, SplineCoupling, affine, alternating_sets
from flowaug.flows.fused_stack import AffineStack, Stack
from flowaug.flows.layer import ContextLayer, context_terms

Phase = Literal["atan2", "linear"]

SHIFTS: dict[Phase, type[CircularShift]] = {"atan2": WindingShift, "linear": CircularShift}


@dataclass(frozen=True)
class FlowSpec:
    """What a conditional flow is made of; the defaults are the paper's, whose published code has a width of 32.

    Args:
        layers: Coupling layers; 12 on CIFAR, 4 on the toy sets, 0 for the base alone.
        width: Hidden units of each coupling's perceptron.
        components: Of the mixture.
        base: mog (mixture of Gaussians), uniform or student_t.
        coupling: affine (RealNVP) or rqs (rational-quadratic splines).
        box: tanh keeps samples in [-1, 1]^d; None leaves them where they are.
        scale: Initial scale of the base.
        spread: Initial locations of the mixture are uniform in (-spread, spread).
        gradient: Of the mixture's weights: implicit (unbiased) or straight_through (published, biased).
        seed: Of the couplings' random halves.
        phase: Of periodic coordinates given the context: atan2 of two linear functions follows an image round the whole
            circle; linear, the former one, does not.

    Raises:
        ValueError: An option is unknown or out of range.
    """

    layers: int = 12
    width: int = 64
    components: int = 10
    base: Literal["mog", "uniform", "student_t"] = "mog"
    coupling: Literal["affine", "rqs"] = "affine"
    box: Literal["tanh"] | None = "tanh"
    scale: float = 0.1
    spread: float = 0.2
    gradient: WeightGradient = "implicit"
    seed: int = 0
    phase: Phase = "atan2"

    def __post_init__(self) -> None:
        choices = {
            "base": ("mog", "uniform", "student_t"),
            "coupling": ("affine", "rqs"),
            "box": ("tanh", None),
            "gradient": ("implicit", "straight_through"),
            "phase": ("atan2", "linear"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.layers < 0 or self.width < 1 or self.components < 1:
            raise ValueError(
                "expected layers >= 0, width >= 1 and components >= 1, "
                f"got {self.layers}, {self.width} and {self.components}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0 and 0 <= self.spread < math.inf):
            raise ValueError(f"expected scale > 0 and spread >= 0, got {self.scale} and {self.spread}")


class ConditionalFlow(nn.Module):
    r"""Exact samples and log-densities of w (d) given contexts (E).

    $\log g(w) = \log p_0(z_0) - \sum_k \log |\det \partial f_k / \partial z_{k-1}|$ over couplings and box. The layers
    are normflows's `Flow`s and the base its `BaseDistribution`: `nf.ConditionalNormalizingFlow(flow.base,
    [*flow.layers, flow.box])` is the same distribution (where nothing is periodic), without shared context terms.

    Densities are per unit of w: the uniform density on the box [-1, 1]^d has an entropy of d log 2 nats.

    Args:
        dim: d, at least 1.
        context_dim: E, at least 1.
        spec: What it is made of.
        periodic: Per coordinate, whether -1 and 1 are the same; none where there is no box.
    """

    circles: Tensor

    def __init__(self, dim: int, context_dim: int, spec: FlowSpec, periodic: Sequence[bool] | None = None) -> None:
        super().__init__()
        if dim < 1 or context_dim < 1:
            raise ValueError(f"expected dim >= 1 and context_dim >= 1, got {dim} and {context_dim}")
        if periodic is not None and len(periodic) != dim:
            raise ValueError(f"expected one entry of periodic per coordinate, {dim}, got {len(periodic)}")
        self.dim, self.spec = dim, spec
        self.base = make_base(dim, context_dim, spec)
        sets = alternating_sets(dim, spec.layers, torch.Generator().manual_seed(spec.seed))
        kind = AffineCoupling if spec.coupling == "affine" else SplineCoupling
        self.layers = nn.ModuleList(kind(dim, context_dim, moved, spec.width) for moved in sets)
        self.box = TanhBox() if spec.box == "tanh" else None
        circles = list(periodic) if self.box is not None and periodic is not None else [False] * dim
        self.shift = SHIFTS[spec.phase](circles, context_dim) if any(circles) else None
        self.register_buffer("bounded", torch.tensor(self.box is not None))
        self.register_buffer("circles", torch.tensor(circles))
        self.register_load_state_dict_pre_hook(_check_structure)

    def take_phase(self, phase: Phase) -> None:
        """Give the periodic coordinates a phase of another form. Its parameters are new: make optimizers afterwards."""
        if self.shift is None:
            return
        weight = self.shift.context.weight
        self.spec = replace(self.spec, phase=phase)
        self.shift = SHIFTS[phase](self.circles.tolist(), weight.shape[1]).to(weight)

    def _terms(self, context: Tensor) -> tuple[list[tuple[ContextLayer, Tensor]], Tensor | None]:
        """Every coupling with its context term, and the phases of the shift where there is one."""
        couplings = cast("list[ContextLayer]", list(self.layers))
        layers = couplings if self.shift is None else [*couplings, self.shift]
        if not layers:
            return [], None
        terms = context_terms(layers, context)
        return list(zip(couplings, terms[: len(couplings)], strict=True)), terms[-1] if self.shift is not None else None

    def sample(self, context: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n samples per context.

        Args:
            context: (B, E); the flow computes in the type of its weights, whatever autocast says.
            n: How many.
            generator: On the device of `context`.

        Returns:
            w (B, n, d), with the pathwise gradient, and log g(w) (B, n).
        """
        with torch.autocast(context.device.type, enabled=False):
            context = context.to(self.base.free.dtype)
            z, log_prob = self.base.draw(context, n, generator)
            z, log_det, phases = self._fused(z, context) if self._is_affine() else self._plain(z, context)
            if self.shift is not None and phases is not None:
                z, _ = self.shift.transform(z, phases)
            return z, log_prob - log_det

    def _is_affine(self) -> bool:
        """Whether all couplings are affine ones that read other coordinates, and may be run as one."""
        own = all(type(layer) is AffineCoupling and layer.inner is not None for layer in self.layers)
        return own and len(self.layers) > 0 and fused.usable()

    def _plain(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Couplings and box of z (B, n, d), one by one: w, its log-determinant (B, n), and the shift's phases."""
        couplings, phases = self._terms(context[:, None])
        return *through(z, (partial(layer.transform, term=term) for layer, term in couplings), self.box), phases

    def _fused(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same by `AffineStack`."""
        layers = cast("list[AffineCoupling]", list(self.layers))
        weights = chain(*zip(*(layer.stack_weights() for layer in layers), strict=True))
        sets = tuple(layer.halves for layer in layers)
        stack = Stack(partial(stacked, self.box, layers), sets, self.box is not None)
        w, log_det = cast("tuple[Tensor, Tensor]", AffineStack.apply(stack, z, context, *weights))
        return w, log_det, None if self.shift is None else self.shift.context(context[:, None])

    def log_prob(self, w: Tensor, context: Tensor) -> Tensor:
        """Exact log-densities of any w.

        Args:
            w: (B, n, d).
            context: (B, E).

        Returns:
            log g(w), (B, n); -inf outside the support.

        Raises:
            ValueError: Shapes do not fit.
        """
        if w.dim() != 3 or w.shape[0] != context.shape[0] or w.shape[-1] != self.dim:
            raise ValueError(f"expected w ({context.shape[0]}, n, {self.dim}), got {tuple(w.shape)}")
        with torch.autocast(context.device.type, enabled=False):
            context = context.to(self.base.free.dtype)[:, None]
            z = w.to(context.dtype)
            total = torch.zeros_like(z[..., 0])
            if self.box is not None:  # no transform lies outside the box
                total = total.masked_fill((z.abs() > 1).any(-1), -torch.inf)
            couplings, phases = self._terms(context)
            if self.shift is not None and phases is not None:
                z, _ = self.shift.transform(z, phases, inverse=True)
            if self.box is not None:
                z, log_det = self.box.inverse(z)
                total = total + log_det
            for layer, term in reversed(couplings):
                z, log_det = layer.transform(z, term, inverse=True)
                total = total + log_det
            return total + self.base.log_prob(z, context)


def stacked(
    box: TanhBox | None, layers: Sequence[AffineCoupling], z: Tensor, context: Tensor, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """What `AffineStack` computes, by the plain layers with its weights."""
    steps = []
    for i, layer in enumerate(layers):
        weight, shift, inner, outer, bias = weights[i :: len(layers)]
        term = F.linear(context[:, None], weight, shift)
        steps.append(partial(affine, term=term, sets=(layer.kept, layer.moved), inner=inner, outer=outer, bias=bias))
    return through(z, steps, box)


def through(
    z: Tensor, steps: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]], box: TanhBox | None
) -> tuple[Tensor, Tensor]:
    """z (B, n, d) after transforms one by one and the box, and their log-determinants (B, n) added up."""
    total = torch.zeros_like(z[..., 0])
    for step in (*steps, *([] if box is None else [box])):
        z, log_det = step(z)
        total = total + log_det
    return z, total


def _check_structure(flow: ConditionalFlow, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before a state is loaded: refuse that of a flow on another space, take the form of its phase."""
    errors: list[str] = rest[-1]
    for name, meaning in (("bounded", "a box"), ("circles", "periodic coordinates")):
        own = getattr(flow, name)
        held = state.setdefault(f"{prefix}{name}", own)
        if held.shape == own.shape and not torch.equal(held.to(own), own):
            errors.append(f"the state is of a flow with {meaning}: {held.tolist()}, this one has {own.tolist()}.")
    weight = state.get(f"{prefix}shift.context.weight")
    if flow.shift is not None and weight is not None and len(weight) != flow.shift.context.out_features:
        flow.take_phase("linear" if flow.spec.phase == "atan2" else "atan2")


def make_base(dim: int, context_dim: int, spec: FlowSpec) -> ConditionalBase:
    """The base distribution of a specification."""
    if spec.base == "uniform":
        return UniformBase(dim, context_dim, scale=spec.scale)
    if spec.base == "student_t":
        return StudentTBase(dim, context_dim, scale=spec.scale)
    return MixtureBase(dim, context_dim, spec.components, scale=spec.scale, spread=spec.spread, gradient=spec.gradient)
