"""The inner loop with the differentiable optimizers of `higher` (Grefenstette et al. 2019).

Their update rules are used; the model is called without state as in the other backends, because
higher's patched modules copy buffers shallowly.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from rml_meta.adaptation.problem import InnerLoop, Params

_IGNORED = ("maximize", "decoupled_weight_decay", "capturable", "fused", "foreach", "differentiable")


def load_higher() -> Any:
    """The module `higher`.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            # 0.2.1 compares a number by `is`; Python says so once, when it compiles the file
            warnings.filterwarnings("ignore", category=SyntaxWarning)
            warnings.filterwarnings("ignore", message="invalid escape sequence", category=DeprecationWarning)
            import higher
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('backend "higher" needs that library: pip install higher') from error
    return higher


def check_optimizer(higher: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what higher 0.2.1 does not know, or silently computes as something else.

    Raises:
        ValueError: Names the optimizer or the option.
    """
    kind = type(optimizer)
    if kind not in higher.optim._opt_mapping:
        known = ", ".join(sorted(k.__name__ for k in higher.optim._opt_mapping))
        raise ValueError(f"higher has no differentiable {kind.__name__}: expected one of {known}")
    if kind is torch.optim.Rprop:
        raise ValueError("Rprop goes by the sign of gradients: its second-order gradient is zero; use another")
    for option in _IGNORED:
        if any(group.get(option) for group in optimizer.param_groups):
            raise ValueError(f"higher ignores {option}=True of {kind.__name__} and would step otherwise: leave it out")


def adapt_higher(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop by its optimizer, gradient descent by default.

    In first order the derivative of the update is left out: the gradient of the result is the initial parameters'.

    Adam of higher 0.2.1 adds eps before the correction of the bias: up to 4e-6 in the loss from torch's (measured).

    Raises:
        ValueError: See `check_optimizer`.
    """
    higher, fast, rates = load_higher(), loop.fast, loop.rates
    # of the right shape: some optimizers make their state at once
    stand_ins = [torch.empty_like(p, requires_grad=True) for p in fast.values()]
    factory = loop.inner_optimizer or (lambda groups: torch.optim.SGD(groups, lr=1.0))
    optimizer = factory([{"params": [p]} for p in stand_ins])
    check_optimizer(higher, optimizer)
    keep = torch.is_grad_enabled()
    tracked = keep and not loop.first_order
    stepper = higher.optim.get_diff_optim(optimizer, stand_ins, track_higher_grads=tracked)
    steps = rates if isinstance(rates, int) else len(rates)
    params = [p if tracked and p.requires_grad else p.detach().requires_grad_() for p in fast.values()]
    for step in range(steps):
        override = None if isinstance(rates, int) else {"lr": list(rates[step].values())}
        with torch.enable_grad():
            loss = loop.problem.loss(dict(zip(fast, params, strict=True)), loop.slow, x, y, step)
            params = stepper.step(loss, params=params, override=override)
    if tracked:
        return dict(zip(fast, params, strict=True))
    ends = [p.detach() for p in params]
    return {n: p + (end - p.detach()) if keep else end for (n, p), end in zip(fast.items(), ends, strict=True)}
