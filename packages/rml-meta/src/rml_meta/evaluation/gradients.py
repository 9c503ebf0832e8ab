"""Is the meta-gradient right? Central differences say so of any model, backend and torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from rml_meta.adaptation import Backend
from rml_meta.episode import Episode, EpisodeLike
from rml_meta.methods import MAML, RML, FewShotMethod, MetaLSTM, Reptile

FLOOR = 1e-3
"""Slopes below this share of the largest are compared on the scale of that share: they may be 0 by construction."""


class MetaGradientError(ArithmeticError):
    """A gradient differs from central differences; the message names the backend and the parameters."""


class Slope(NamedTuple):
    """Derivative of the loss along a random direction of one parameter: by the gradient and by differences."""

    name: str
    gradient: float
    difference: float


def check_meta_gradient(
    method: FewShotMethod,
    episode: EpisodeLike,
    *,
    backends: Sequence[str] | None = None,
    step: float = 1e-6,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the gradient of `training_loss` with central differences in float64, parameter by parameter.

    A wrong second derivative leaves the loss as it is and the training plausible: this finds it. The method is copied,
    not changed; random numbers come alike in every evaluation.

    Args:
        method: Whose gradient is a derivative: not Reptile, Meta-LSTM or a method of first order.
        episode: A small one; its floating-point inputs are taken in float64.
        backends: Of the inner loop; None takes every one that goes with the method, but for `compiled`, which needs
            minutes. Methods without an inner loop have one, called `autograd`.
        step: Of the differences; a smaller one is tried where a kink, as that of ReLU, may lie between.
        tolerance: Largest relative difference.
        seed: Of the directions and of what the model draws at random.

    Returns:
        The largest relative difference by backend. One that refuses the model is left out, unless it was asked for.

    Raises:
        MetaGradientError: A parameter's gradient is off.
        ValueError: The method's gradient is no derivative, or a backend that was asked for refuses the model.
    """
    _check_kind(method)
    found = {}
    for name in _backends(method) if backends is None else backends:
        try:
            slopes = _slopes(_in_double(method, name), _doubled(episode), step, seed)
        except (ValueError, RuntimeError):
            if backends is not None or name == "loop":
                raise
            continue
        found[name] = _judge(name, slopes, tolerance)
    return found


def _check_kind(method: FewShotMethod) -> None:
    if isinstance(method, (Reptile, MetaLSTM)):
        raise ValueError(f"the gradient of {type(method).__name__} is no derivative of its loss, by its definition")
    if isinstance(method, MAML) and method.first_order:
        raise ValueError("a gradient of first order leaves derivatives out, by its definition: use first_order=False")


def _backends(method: FewShotMethod) -> list[str]:
    if not isinstance(method, MAML):
        return ["autograd"]
    if method.inner_optimizer is not None:
        return ["higher"]
    if method.multi_step_epochs:
        return ["loop"]
    reheaded = isinstance(method, RML) and method.class_alignment == "reheaded"
    left_out = {"compiled", "auto"} | ({"vmap", "grouped"} if reheaded else set())
    return [name for name in get_args(Backend) if name not in left_out]


def _in_double(method: FewShotMethod, backend: str) -> FewShotMethod:
    made = copy.deepcopy(method).double()
    if isinstance(made, MAML):
        if backend not in get_args(Backend):
            raise ValueError(f"unknown backend {backend!r}: expected one of {', '.join(get_args(Backend))}")
        made.backend = backend  # type: ignore[assignment]  # one of them
    return made


def _doubled(episode: EpisodeLike) -> Episode:
    parts = (episode.support_x, episode.support_y, episode.query_x, episode.query_y)
    return Episode(*(part.double() if part.is_floating_point() else part for part in parts))


def _slopes(method: FewShotMethod, episode: Episode, step: float, seed: int) -> list[Slope]:
    device = episode.support_x.device

    def loss() -> Tensor:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return copied.training_loss(episode)

    copied: Any = copy.deepcopy(method)  # a loss may count its steps
    named = {n: p for n, p in copied.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss(), list(named.values()), allow_unused=True)
    copied = method
    parameters = dict(method.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    slopes = []
    for name, grad in zip(named, grads, strict=True):
        p = parameters[name]
        along = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(device)
        by_gradient = 0.0 if grad is None else float((grad * along).sum())
        differences = [_difference(loss, p, along, size) for size in (step, step / 10)]
        slopes.append(Slope(name, by_gradient, min(differences, key=lambda d: abs(d - by_gradient))))
    return slopes


@torch.no_grad()
def _difference(loss: Any, p: Tensor, along: Tensor, step: float) -> float:
    before, ends = p.clone(), []
    for sign in (1, -1):
        p.copy_(before + sign * step * along)
        ends.append(float(loss()))
    p.copy_(before)
    return (ends[0] - ends[1]) / (2 * step)


def _judge(backend: str, slopes: list[Slope], tolerance: float) -> float:
    """The largest relative difference.

    Raises:
        MetaGradientError: It is above `tolerance`.
    """
    floor = FLOOR * max((abs(value) for slope in slopes for value in slope[1:]), default=0.0)
    errors = {s: abs(s.gradient - s.difference) / max(abs(s.gradient), abs(s.difference), floor, 1e-30) for s in slopes}
    off = [
        f"{s.name} ({s.gradient:.6g}, by differences {s.difference:.6g})" for s, e in errors.items() if e > tolerance
    ]
    if off:
        raise MetaGradientError(
            f"backend {backend!r} gives a wrong gradient of {len(off)} of {len(slopes)} parameters, along a random "
            f"direction of each: {', '.join(off)}"
        )
    return max(errors.values(), default=0.0)
