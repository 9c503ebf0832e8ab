"""The inner loops of all tasks at once, by `torch.func.vmap`."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.func import vmap

from rml_meta.adaptation.functional import adapt_functional
from rml_meta.adaptation.norms import split_affine
from rml_meta.adaptation.problem import InnerLoop, InnerProblem, Params
from rml_meta.adaptation.second_order import twice_differentiable


def batchable(problem: InnerProblem) -> InnerProblem:
    """The problem on a copy of its model that is safe to batch: see `rml_meta.adaptation.norms.split_affine`."""
    return replace(problem, model=split_affine(problem.model))


def adapt_stacked(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters after the inner loop of each task, (T, ...), from inputs (T, S, ...) and labels (T, S).

    Norms use the statistics of the batch. Give the loop a problem that `batchable` made: the gradient of stock affine
    norms would be wrong without a sign of it.
    """

    def one(x: Tensor, y: Tensor) -> Params:
        return adapt_functional(loop, x, y)

    with twice_differentiable(loop.problem.model, not loop.first_order):
        return vmap(one, randomness="different")(x, y)


def stacked_logits(problem: InnerProblem, fast: Params, slow: Params, x: Tensor, step: int) -> Tensor:
    """Logits (T, R, Q, N) of parameters (T, ...) on R sets of inputs each, (T, R, Q, ...)."""

    def of_task(fast: Params, x: Tensor) -> Tensor:
        return vmap(lambda x: problem.logits(fast, slow, x, step), randomness="different")(x)

    with twice_differentiable(problem.model, False):
        return vmap(of_task, randomness="different")(fast, x)
