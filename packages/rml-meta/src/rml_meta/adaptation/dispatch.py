"""One function in front of the backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rml_meta.adaptation.compiled import adapt_compiled
from rml_meta.adaptation.grouped import adapt_grouped, check_grouped, groupable
from rml_meta.adaptation.higher_backend import adapt_higher
from rml_meta.adaptation.loop import adapt_loop
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import (
    InnerLoop,
    InnerProblem,
    LossFn,
    OptimizerFactory,
    Params,
    Rate,
    resolve_rates,
)
from rml_meta.adaptation.recompute import adapt_recompute
from rml_meta.adaptation.second_order import twice_differentiable
from rml_meta.adaptation.stacked import adapt_stacked, batchable
from rml_meta.episode import check_set, leading_of

Backend = Literal["loop", "grouped", "vmap", "higher", "recompute", "compiled", "auto"]
WIDEST = 128
"""Channels of a convolution up to which `auto` groups tasks."""

Adapted = Literal["all", "head", "body"] | Callable[[str], bool]


def adapt(
    model: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    *,
    steps: int,
    lr: Rate | Sequence[Rate] | None,
    params: Params | None = None,
    adapted: Adapted = "all",
    backend: Backend = "loop",
    first_order: bool = False,
    loss_fn: LossFn = F.cross_entropy,
    inner_optimizer: OptimizerFactory | None = None,
) -> Params:
    r"""Parameters after gradient descent on a support set, differentiable in those before it.

    $\theta^{k+1} = \theta^k - \alpha \nabla \ell(S; \theta^k)$ for `steps` steps (equations 3 and 4 of the paper). The
    model is not changed. Batch norms use the statistics of the support set, whatever mode they are in; other layers
    stay in their mode. Under `torch.no_grad` no graph is kept.

    Args:
        model: Inputs to logits.
        support_x: (S, ...) inputs; (T, S, ...) of T tasks gives every parameter a leading T.
        support_y: (S,) or (T, S) labels; for regression floating-point targets, also
            (S, D) or (T, S, D).
        steps: How many.
        lr: Rate $\alpha$: of all parameters, of each by name, or a sequence of these, one a step. Tensors may need
            gradients. None with `inner_optimizer` takes that one's.
        params: Where to start, by name; by default the model's parameters.
        adapted: Which parameters move: `all`, the `head` alone (ANIL), the `body` alone (BOIL), or a function of the
            name. The head is the submodule `head`, else the last linear layer. Frozen ones never move.
        backend: `loop` is plain autograd, right for every module. `grouped` has all tasks side by side in the channels,
            the fastest on a CPU for the usual convolutional networks; others are refused. `auto` is `grouped` where
            that was measured to be faster, else `loop`. `vmap` takes all tasks at once, of any layers. `recompute`
            needs the memory of one inner step only; random numbers come again in its backward pass. `higher` takes any
            optimizer that it can differentiate. `compiled` runs `torch.compile`, minutes at first.
        first_order: Leave out second derivatives.
        loss_fn: Outputs and labels, or targets, to the loss (0-dim).
        inner_optimizer: For `higher`: parameter groups to an optimizer.

    Returns:
        All parameters by name, those that moved (T, ...) where there are T tasks.

    Raises:
        ValueError: An option or shape is wrong; the message has what was expected.
    """
    check_set("support", support_x, support_y)
    leading = leading_of(support_x, support_y)
    if len(leading) > 1:
        raise ValueError(f"support_y must be (S,) or (T, S), got {tuple(support_y.shape)}: merge the tasks' dimensions")
    check_backend(backend, inner_optimizer, lr)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    names = adapted_names(model, adapted)
    params = dict(model.named_parameters()) if params is None else params
    if missing := [n for n, _ in model.named_parameters() if n not in params]:
        raise ValueError(f"params lacks {missing}: give every parameter of the model by name")
    fast = {n: params[n] for n in names}
    slow = {n: p for n, p in params.items() if n not in fast}
    rates = steps if lr is None else resolve_rates(lr, names, steps)
    loop = InnerLoop(InnerProblem(model, loss_fn), fast, slow, rates, first_order, inner_optimizer)
    run = run_tasks if leading else run_backend
    return {**params, **run(backend, loop, support_x, support_y)}


def check_backend(backend: str, inner_optimizer: OptimizerFactory | None, lr: object) -> None:
    """Raise a ValueError unless there is such a backend and the other two go with it."""
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}: expected one of {', '.join(get_args(Backend))}")
    if inner_optimizer is not None and backend != "higher":
        raise ValueError(f"inner_optimizer needs backend='higher', got {backend!r}, which descends the gradient")
    if lr is None and inner_optimizer is None:
        raise ValueError("lr is None: give a rate, or an inner_optimizer that has one")


def adapted_names(model: nn.Module, adapted: Adapted) -> list[str]:
    """Names of the parameters that the inner loop moves.

    Raises:
        ValueError: None is left, or `adapted` is no known word.
    """
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    if callable(adapted):
        chosen = [n for n in names if adapted(n)]
    elif adapted == "all":
        chosen = names
    elif adapted in ("head", "body"):
        prefix = head_prefix(model)
        chosen = [n for n in names if n.startswith(prefix) == (adapted == "head")]
    else:
        raise ValueError(f"adapted is {adapted!r}: expected all, head, body or a function of the parameter's name")
    if not chosen:
        raise ValueError(f"adapted={adapted!r} leaves no parameter to adapt among {names}")
    return chosen


def head_prefix(model: nn.Module) -> str:
    """How the names of the head's parameters begin: the submodule `head`, else the last linear layer.

    Raises:
        ValueError: The model has neither.
    """
    if isinstance(getattr(model, "head", None), nn.Module):
        return "head."
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or not linear[-1]:
        raise ValueError("the model has no head: give it a submodule `head`, or name parameters by a function")
    return f"{linear[-1]}."


def run_backend(backend: Backend, loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """The parameters of `loop` after it ran on one support set, x (S, ...) and y (S,)."""
    model, second = loop.problem.model, torch.is_grad_enabled() and not loop.first_order
    with batch_statistics(model), twice_differentiable(model, second):
        if backend == "vmap":
            stacked = adapt_stacked(replace(loop, problem=batchable(loop.problem)), x[None], y[None])
            return {n: p[0] for n, p in stacked.items()}
        one_task = {"recompute": adapt_recompute, "compiled": adapt_compiled, "higher": adapt_higher}
        return one_task.get(backend, adapt_loop)(loop, x, y)  # one task alone has nothing to be grouped with


def run_tasks(backend: Backend, loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """The parameters (T, ...) of `loop` after it ran on T support sets, x (T, S, ...) and y (T, S)."""
    if backend == "vmap":
        return adapt_stacked(replace(loop, problem=batchable(loop.problem)), x, y)
    if (problem := grouped_problem(backend, loop, x)) is not None:
        return adapt_grouped(replace(loop, problem=problem), x, y)
    each = [run_backend(backend, loop, one_x, one_y) for one_x, one_y in zip(x, y, strict=True)]
    return {n: torch.stack([one[n] for one in each]) for n in loop.fast}


def worth_grouping(model: nn.Module, x: Tensor) -> bool:
    """Whether grouping the tasks of inputs `x` (T, S, ...) was measured to be faster than one after the other.

    With 32, 64 and 128 channels Conv4 was 1.4, 1.4 and 1.1 times as fast on a CPU at five steps; ResNet-10, of up to
    512 channels, took 1.04 times as long (`benchmarks/rml_meta/results/backends.json`).
    """
    widths = [module.out_channels for module in model.modules() if isinstance(module, _ConvNd)]
    return len(x) > 1 and x.is_cpu and max(widths, default=0) <= WIDEST


def grouped_problem(backend: Backend, loop: InnerLoop, x: Tensor) -> InnerProblem | None:
    """The problem of `loop` grouped for inputs (T, S, ...); None where `backend` is another, or auto would be slower.

    Raises:
        ValueError: It cannot be, and backend is `grouped`; the message names the layer.
    """
    if backend not in ("grouped", "auto") or (backend == "auto" and not worth_grouping(loop.problem.model, x)):
        return None
    try:
        problem = groupable(loop.problem, len(x))
        check_grouped(loop.problem, problem, loop.fast, loop.slow, x)
    except (ValueError, RuntimeError) as error:
        if backend == "auto":
            return None
        raise ValueError(str(error)) from error
    return problem
