"""Sampling in fewer operations, against the plain layers, finite differences and itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from flowaug import ConditionalFlow, FlowSpec
from flowaug.flows import fused
from flowaug.flows.bases import MixtureBase
from flowaug.flows.box import TanhBox
from flowaug.flows.coupling import AffineCoupling
from flowaug.flows.flow import stacked
from flowaug.flows.fused_stack import AffineStack, Stack, orders_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

SPACES = [(6, None), (3, [False, False, True]), (2, [True, False]), (1, [True])]


def moved_away(flow: ConditionalFlow) -> ConditionalFlow:
    """Parameters far from where a new flow starts, in float64."""
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.double().parameters():
        parameter.data += 0.15 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return flow


def results(flow: ConditionalFlow, n: int = 3) -> list[Tensor | None]:
    """Samples, log-densities, and the gradients of a sum over both to the contexts and every parameter."""
    g = torch.Generator().manual_seed(3)
    context = torch.randn(5, 7, generator=g, dtype=torch.float64, requires_grad=True)
    w, log_prob = flow.sample(context, n, g)
    prices = [torch.randn(value.shape, generator=g, dtype=torch.float64) for value in (w, log_prob)]
    total = (w * prices[0]).sum() + (log_prob * prices[1]).sum()
    return [w, log_prob, *torch.autograd.grad(total, [context, *flow.parameters()], allow_unused=True)]


def compare(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert len(found) == len(expected)
    for mine, plain in zip(found, expected, strict=True):
        if plain is None:
            assert mine is None or not mine.any()
        else:
            torch.testing.assert_close(mine, plain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("base", ["mog", "uniform", "student_t"])
@pytest.mark.parametrize(("dim", "periodic"), SPACES)
def test_values_and_gradients_are_those_of_the_plain_layers(dim: int, periodic: Any, base: Any, monkeypatch) -> None:
    torch.manual_seed(0)
    spec = FlowSpec(layers=5, width=9, components=4, base=base, scale=0.4, spread=0.7)
    flow = moved_away(ConditionalFlow(dim, 7, spec, periodic))
    found = results(flow)
    monkeypatch.setattr(fused, "usable", lambda: False)
    compare(found, results(flow))


@pytest.mark.parametrize(
    "spec", [FlowSpec(layers=3, box=None), FlowSpec(layers=0), FlowSpec(gradient="straight_through")]
)
def test_other_structures_too(spec: FlowSpec, monkeypatch) -> None:
    torch.manual_seed(0)
    flow = moved_away(ConditionalFlow(6, 7, spec))
    found = results(flow)
    monkeypatch.setattr(fused, "usable", lambda: False)
    compare(found, results(flow))


def test_a_structure_that_was_loaded_is_followed(monkeypatch) -> None:
    torch.manual_seed(0)
    own = moved_away(ConditionalFlow(6, 7, FlowSpec(seed=1)))
    other = ConditionalFlow(6, 7, FlowSpec(seed=0)).double()
    other.load_state_dict(own.state_dict())
    found = results(other)
    compare(found, results(own))
    monkeypatch.setattr(fused, "usable", lambda: False)
    compare(found, results(other))


@pytest.mark.parametrize("box", [True, False])
def test_derivatives_of_the_stack_are_the_finite_differences(box: bool) -> None:
    torch.manual_seed(0)
    layers = [AffineCoupling(3, 2, moved, 4) for moved in ((1,), (0, 2), (2,))]
    stack = Stack(partial(stacked, TanhBox() if box else None, layers), tuple(layer.halves for layer in layers), box)
    kinds = zip(*(layer.stack_weights() for layer in layers), strict=True)
    shapes = [(2, 2, 3), (2, 2), *(value.shape for kind in kinds for value in kind)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    function = partial(AffineStack.apply, stack)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_second_derivatives_of_the_mixture_are_those_of_the_plain_one(monkeypatch) -> None:
    torch.manual_seed(0)
    base = MixtureBase(2, 3, 4, scale=0.7, spread=1.0).double()
    base.context.weight.data *= 30
    inputs = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True), *base.parameters()]
    found = []
    for usable in (True, False):
        monkeypatch.setattr(fused, "usable", lambda usable=usable: usable)
        moving, log_prob = base.draw(inputs[0], 5, torch.Generator().manual_seed(0))
        assert moving.grad_fn is not None
        assert (moving.grad_fn.name() == "ImplicitMixtureBackward") == usable
        first = torch.autograd.grad(moving.sin().sum() + log_prob.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(value.square().sum() for value in first), inputs)
        found.append([*first, *second])
    compare(*found)


@pytest.mark.parametrize("frozen", [False, True])
def test_second_derivatives_of_a_whole_flow_are_those_of_the_plain_layers(frozen: bool, monkeypatch) -> None:
    torch.manual_seed(0)
    flow = moved_away(ConditionalFlow(3, 7, FlowSpec(layers=3, width=6, components=3), [False, True, False]))
    flow.requires_grad_(not frozen)
    found = []
    for usable in (True, False):
        monkeypatch.setattr(fused, "usable", lambda usable=usable: usable)
        g = torch.Generator().manual_seed(3)
        inputs = [torch.randn(4, 7, generator=g, dtype=torch.float64, requires_grad=True)]
        w, log_prob = flow.sample(inputs[0], 3, g)  # the samples that couplings move come from the contexts too
        inputs += [] if frozen else list(flow.parameters())
        first = torch.autograd.grad(w.sin().sum() + log_prob.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(value.square().sum() for value in first), inputs, allow_unused=True)
        found.append([*first, *second])
    compare(*found)


def test_no_component_may_be_too_far_for_the_gradient() -> None:
    base = MixtureBase(3, 2, 4, scale=0.01, spread=100.0)
    moving, log_prob = base.draw(torch.randn(5, 2), 6)
    grads = torch.autograd.grad(moving.sum() + log_prob.sum(), list(base.parameters()))
    assert all(value.isfinite().all() for value in grads)


@pytest.mark.parametrize(("images", "n"), [(0, 3), (1, 1), (2, 0)])
def test_few_and_no_images(images: int, n: int) -> None:
    flow = ConditionalFlow(3, 4, FlowSpec(layers=2))
    context = torch.randn(images, 4, requires_grad=True)
    w, log_prob = flow.sample(context, n)
    assert (w.shape, log_prob.shape) == ((images, n, 3), (images, n))
    (w.sum() + log_prob.sum()).backward()
    assert context.grad is not None
    assert context.grad.shape == context.shape


def test_samples_may_be_changed_in_place() -> None:
    flow = ConditionalFlow(3, 4, FlowSpec(layers=2))
    w, log_prob = flow.sample(torch.randn(2, 4), 5)
    w.mul_(2)
    log_prob.add_(1)
    (w.sum() + log_prob.sum()).backward()
    assert all(parameter.grad is not None for parameter in flow.layers.parameters())


def test_what_looks_inside_gets_the_plain_layers() -> None:
    flow = ConditionalFlow(3, 4, FlowSpec(layers=2, base="uniform"))
    context = torch.randn(2, 4)

    def first(context: Tensor) -> Tensor:
        return flow.sample(context, 2, torch.Generator().manual_seed(0))[0].sum()

    given = context.clone().requires_grad_()
    (expected,) = torch.autograd.grad(first(given), given)
    torch.testing.assert_close(torch.func.grad(first)(context), expected)
    with FlopCounterMode(display=False) as counted:
        first(context)
    assert counted.get_total_flops() > 0


def test_halves_that_change_places_are_not_moved() -> None:
    sets = (((0, 2), (1, 3)), ((1, 3), (0, 2)), ((0, 1), (2, 3)))
    orders, inverse = orders_of(sets, torch.device("cpu"))
    assert [None if order is None else order.tolist() for order in orders] == [
        [0, 2, 1, 3],
        None,
        [2, 0, 3, 1],
        [0, 1, 2, 3],
    ]
    states = [(order, back, torch.arange(4)) for order, back in zip(orders, inverse, strict=True) if order is not None]
    assert all(torch.equal(state[order][back], state) for order, back, state in states)
