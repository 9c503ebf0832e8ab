"""The inner loop and its derivative, each compiled as one graph.

`torch.compile` cannot differentiate twice through autograd, so the derivative is a graph of its own that computes
the inner loop again and pulls a cotangent back through it by `torch.func`. Compiling takes minutes for a
convolutional network; both graphs are kept for the life of the model, one for each shape of support set.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rml_meta.adaptation.closure import Rng, foreign_leaves, graph_mark
from rml_meta.adaptation.functional import adapt_functional
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import InnerLoop, InnerProblem, Params, StepRates
from rml_meta.adaptation.recompute import check_constant
from rml_meta.adaptation.second_order import twice_differentiable

_CACHE: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[Callable, Callable]]] = weakref.WeakKeyDictionary()


def _graphs(loop: InnerLoop, compiler: str, x: Tensor, y: Tensor) -> tuple[Callable, Callable]:
    """The compiled inner loop and its compiled pull-back."""
    problem, first_order = loop.problem, loop.first_order
    of_model = _CACHE.setdefault(problem.model, {})
    key = (problem.loss_fn, problem.per_step, first_order, compiler)
    if key not in of_model:
        _check_held(loop, x, y)
        # the cache must not keep the model, its own key, alive
        reference = weakref.ref(problem.model)
        loss_fn, per_step, ties = problem.loss_fn, problem.per_step, dict(problem.ties)

        def forward(fast: Params, slow: Params, rates: StepRates, x: Tensor, y: Tensor) -> Params:
            model = reference()
            assert model is not None  # the caller holds it
            problem = InnerProblem(model, loss_fn, per_step, ties)
            return adapt_functional(InnerLoop(problem, fast, slow, rates, first_order), x, y)

        def pull_back(fast: Params, slow: Params, rates: StepRates, x: Tensor, y: Tensor, v: Params) -> Any:
            def product(fast: Params, slow: Params, rates: StepRates) -> Tensor:
                out = forward(fast, slow, rates, x, y)
                return torch.stack([(out[n] * v[n]).sum() for n in out]).sum()

            return torch.func.grad(product, argnums=(0, 1, 2))(fast, slow, rates)

        make = functools.partial(torch.compile, fullgraph=True, dynamic=False, backend=compiler)
        of_model[key] = (make(forward), make(pull_back))
    return of_model[key]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(x, y, *tensors)
        return call.forward(x, y, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y, *tensors = ctx.saved_tensors
        return None, None, None, *ctx.call.backward(x, y, tuple(tensors), v)


class _Call:
    """One call of the compiled graphs: how their flat tensors are put together."""

    def __init__(self, loop: InnerLoop, graphs: Any) -> None:
        self.problem, self.graphs = loop.problem, graphs
        self.fast, self.slow = tuple(loop.fast), tuple(loop.slow)
        self.steps = len(loop.step_rates)

    def join(self, tensors: tuple[Tensor, ...]) -> tuple[Params, Params, StepRates]:
        f, s = len(self.fast), len(self.slow)
        rates = tensors[f + s :]
        by_step = [dict(zip(self.fast, rates[k * f : (k + 1) * f], strict=True)) for k in range(self.steps)]
        fast = dict(zip(self.fast, tensors[:f], strict=True))
        return fast, dict(zip(self.slow, tensors[f : f + s], strict=True)), by_step  # type: ignore[return-value]

    def forward(self, x: Tensor, y: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad(), batch_statistics(self.problem.model), twice_differentiable(self.problem.model):
            out = self.graphs[0](*self.join(tensors), x, y)
        return tuple(out[n] for n in self.fast)

    def backward(self, x: Tensor, y: Tensor, tensors: tuple[Tensor, ...], v: Any) -> tuple[Tensor, ...]:
        cotangent = dict(zip(self.fast, v, strict=True))
        with torch.no_grad(), batch_statistics(self.problem.model), twice_differentiable(self.problem.model):
            fast, slow, rates = self.graphs[1](*self.join(tensors), x, y, cotangent)
        return (*fast.values(), *slow.values(), *(r for of_step in rates for r in of_step.values()))


def _check_held(loop: InnerLoop, x: Tensor, y: Tensor) -> None:
    """Refuse, when a graph is about to be compiled, what it would leave without a gradient."""
    mark = graph_mark()
    fast, slow = ({n: p.detach().requires_grad_() for n, p in of.items()} for of in (loop.fast, loop.slow))
    before = Rng(x)
    with torch.enable_grad():
        loss = loop.problem.loss(fast, slow, x, y, 0)
    if found := foreign_leaves(loss, [*fast.values(), *slow.values()], mark):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in found)
        raise ValueError(
            f"the loss or the model holds tensors that need a gradient (shapes {shapes}), which backend 'compiled' "
            "does not give: use backend='loop' or 'recompute'"
        )
    before.restore()


def adapt_compiled(loop: InnerLoop, x: Tensor, y: Tensor, compiler: str = "inductor") -> Params:
    """Parameters after the inner loop, by a compiled graph; `compiler` is a backend of `torch.compile`.

    Raises:
        ValueError: The support set or a tensor that the loss holds needs a gradient, which this backend does not give,
            or the model draws at random, which the two graphs would do each for itself.
    """
    check_constant(x, y, "compiled")
    graphs = _graphs(loop, compiler, x, y)
    # numbers become tensors, so that another rate is no other graph
    flat = [torch.as_tensor(r).to(loop.fast[n]) for of_step in loop.step_rates for n, r in of_step.items()]
    tensors = (*(p.contiguous() for p in loop.fast.values()), *loop.slow.values(), *flat)
    before = Rng(x)
    out = _Compiled.apply(_Call(loop, graphs), x, y, *tensors)
    if torch.is_grad_enabled() and before != Rng(x):
        raise ValueError(
            "the model draws at random, which the compiled backward pass would do anew: put dropout in evaluation "
            "mode, or use backend='loop' or 'recompute'"
        )
    return dict(zip(loop.fast, out, strict=True))  # pyright: ignore[reportArgumentType]  # apply is untyped
