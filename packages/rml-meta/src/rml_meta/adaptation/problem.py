"""What every inner loop works on: a loss of parameters, and the rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_meta.adaptation.stateless import stateless_call, tied_names

Params = dict[str, Tensor]
Rate = float | Tensor | Mapping[str, float | Tensor]
"""Of one step: one for all parameters (0-dim), or one for each by name (0-dim or of the parameter's shape)."""
StepRates = list[dict[str, float | Tensor]]
LossFn = Callable[[Tensor, Tensor], Tensor]
ELEMENTWISE = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
ELEMENTWISE_MODULES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
"""Parameters or parameter groups to an optimizer, as `functools.partial(torch.optim.Adam, lr=1e-3)`."""


@dataclass(frozen=True, eq=False)
class InnerProblem:
    """The loss that an inner loop descends.

    Attributes:
        model: Called with parameters put in its own's place.
        loss_fn: Logits and labels to a 0-dim loss.
        per_step: Names of slow parameters with a leading dimension of one row a step: row k is used at step k, the
            last one from there on (per-step scale and shift of norms, MAML++).
        ties: `tied_names(model)`, found where left out.
    """

    model: nn.Module
    loss_fn: LossFn = F.cross_entropy
    per_step: frozenset[str] = frozenset()
    ties: Mapping[str, str] = None  # type: ignore[assignment]  # filled in __post_init__

    def __post_init__(self) -> None:
        if self.ties is None:
            object.__setattr__(self, "ties", tied_names(self.model))

    def logits(self, fast: Params, slow: Params, x: Tensor, step: int) -> Tensor:
        """Output of the model at inner step `step`, with adapted (`fast`) and other (`slow`) parameters and buffers."""
        return stateless_call(self.model, {**self.at_step(slow, step), **fast}, x, self.ties)

    def at_step(self, slow: Params, step: int) -> Params:
        """The slow parameters with the row of inner step `step` of those that have one a step."""
        if not self.per_step:
            return slow
        return {n: p[min(step, len(p) - 1)] if n in self.per_step else p for n, p in slow.items()}

    def loss(self, fast: Params, slow: Params, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Loss (0-dim) of the parameters on inputs `x` (M, ...) with labels `y` (M,)."""
        return apply_loss(self.loss_fn, self.logits(fast, slow, x, step), y)


def apply_loss(loss_fn: LossFn, outputs: Tensor, y: Tensor) -> Tensor:
    """The loss (0-dim) of outputs (M, ...) for labels (M,) or targets (M, D).

    Raises:
        ValueError: The targets are no labels, which cross-entropy needs; they do not fit the outputs; or the loss is
            no single number.
    """
    if y.is_floating_point() and loss_fn is F.cross_entropy:
        raise ValueError(
            f"the targets are {y.dtype}, and the loss is cross-entropy, which takes int64 class labels: give loss_fn=, "
            "as torch.nn.functional.mse_loss for regression or torch.nn.CrossEntropyLoss() for soft labels"
        )
    elementwise = loss_fn in ELEMENTWISE or isinstance(loss_fn, ELEMENTWISE_MODULES)
    if y.is_floating_point() and y.dim() != outputs.dim() and (y.dim() > 1 or elementwise):
        raise ValueError(
            f"targets {tuple(y.shape)} do not fit outputs {tuple(outputs.shape)} of one task: floating-point targets "
            "are (*tasks, M, D), of the shape of the outputs"
        )
    loss = loss_fn(outputs, y)
    if loss.dim():
        raise ValueError(f"loss_fn gave a loss of shape {tuple(loss.shape)}: expected one number, as its mean")
    return loss


@dataclass(frozen=True, eq=False)
class InnerLoop:
    """An inner loop that is yet to run: what every backend takes, beside the support set.

    Attributes:
        problem: The loss that it descends.
        fast: Parameters that move, by name.
        slow: The others.
        rates: Of each step, or a number of steps at the rate of the inner optimizer.
        first_order: Leave out second derivatives.
        inner_optimizer: In place of gradient descent: backend `higher` alone.
    """

    problem: InnerProblem
    fast: Params
    slow: Params
    rates: StepRates | int
    first_order: bool = False
    inner_optimizer: OptimizerFactory | None = None

    @property
    def step_rates(self) -> StepRates:
        """The rates of the steps of gradient descent."""
        assert not isinstance(self.rates, int), "checked by check_backend"
        return self.rates


def resolve_rates(lr: Rate | Sequence[Rate], names: Sequence[str], steps: int) -> StepRates:
    """The rate of each step and parameter; the last of a sequence of rates goes on where there are more steps.

    Raises:
        ValueError: There is no rate for a parameter, the sequence is empty, or a number is negative or not finite.
    """
    by_step: list[Rate] = list(lr) if isinstance(lr, Sequence) else [lr]
    for rate in by_step:
        for value in rate.values() if isinstance(rate, Mapping) else [rate]:
            check_rate("lr", value)
    if not by_step:
        raise ValueError("lr is an empty sequence: expected one rate a step")
    return [_of_step(by_step[min(step, len(by_step) - 1)], names) for step in range(steps)]


def check_rate(name: str, value: float | Tensor) -> None:
    """Raise a ValueError if a number is no rate; tensors, which may be learned, are not looked at."""
    if not isinstance(value, Tensor) and not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}: expected a finite rate of 0 or more")


def _of_step(rate: Rate, names: Sequence[str]) -> dict[str, float | Tensor]:
    if not isinstance(rate, Mapping):
        return dict.fromkeys(names, rate)
    missing = [name for name in names if name not in rate]
    if missing:
        raise ValueError(f"lr has no rate for the adapted parameters {missing}: give one for each")
    return {name: rate[name] for name in names}


def descend(fast: Params, rate: Mapping[str, float | Tensor], grads: Sequence[Tensor | None]) -> Params:
    """One step down the gradients; a parameter that the loss does not use stays."""
    return {n: p if g is None else _less(p, rate[n], g) for (n, p), g in zip(fast.items(), grads, strict=True)}


def _less(p: Tensor, rate: float | Tensor, g: Tensor) -> Tensor:
    """p - rate g, by one operation where the rate is a number."""
    return p - rate * g if isinstance(rate, Tensor) else torch.sub(p, g, alpha=rate)
