"""Reptile's inner optimizer: its state goes on from task to task, into use, and into checkpoints."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import Episode, Reptile
from rml_meta.methods.reptile import minibatches
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

ADAM = functools.partial(torch.optim.Adam, lr=0.01, betas=(0.0, 0.999))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def tasks(count: int) -> Episode:
    x = torch.randn(count, 12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(12).expand(count, -1) % 3
    return Episode(x[:, :6], y[:, :6], x[:, 6:], y[:, 6:])


def whole(e: Episode, i: int) -> tuple[Tensor, Tensor]:
    return torch.cat([e.support_x[i], e.query_x[i]]), torch.cat([e.support_y[i], e.query_y[i]])


def adam_by_hand(params: list[Tensor], moments: list[Tensor], step: int, loss: Tensor) -> None:
    """A step of Adam without momentum, in place."""
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        for p, v, g in zip(params, moments, grads, strict=True):
            v.mul_(0.999).add_(0.001 * g**2)
            p.sub_(0.01 * g / ((v / (1 - 0.999**step)).sqrt() + 1e-8))


def test_moments_go_on_from_task_to_task_and_into_use() -> None:
    e, model = tasks(3), small()
    method = Reptile(model, 2, 4, inner_batch=None, inner_optimizer=ADAM)
    method(e).backward()
    moments = [torch.zeros_like(p) for p in model.parameters()]
    ends, step = [], 0
    for i in range(3):
        copy = small()
        params, (x, y) = list(copy.parameters()), whole(e, i)
        for _ in range(2):
            step += 1
            adam_by_hand(params, moments, step, F.cross_entropy(copy(x), y))
        ends.append([p.detach() for p in params])
    for k, p in enumerate(model.parameters()):
        expected = torch.stack([p.detach() - end[k] for end in ends]).mean(0)
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    (used,) = method.fit_support(e.support_x[0], e.support_y[0]).tasks
    copy = small()
    for _ in range(4):
        step += 1
        adam_by_hand(list(copy.parameters()), moments, step, F.cross_entropy(copy(e.support_x[0]), e.support_y[0]))
    for name, p in copy.named_parameters():
        torch.testing.assert_close(used.fast[name], p.detach(), rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_steps_are_no_signs_after_the_first_task() -> None:
    first = Episode(*(v[:1] for v in tasks(1)[:4]))  # type: ignore[index]
    weak = first._replace(support_x=1e-3 * first.support_x, query_x=1e-3 * first.query_x)
    model = nn.Linear(5, 3, bias=False).double()
    sizes = []
    for carry in (True, False):
        method = Reptile(model, 1, inner_batch=None, inner_optimizer=ADAM, carry=carry)
        method(first)
        model.zero_grad()
        method(weak).backward()
        assert model.weight.grad is not None
        sizes.append(model.weight.grad.abs().max().item())
    assert sizes[1] == pytest.approx(0.01, rel=1e-2)  # a whole step of the rate, however small the gradient
    assert sizes[0] < 2e-3


def test_checkpoints_hold_the_moments_and_older_ones_are_read() -> None:
    e = tasks(2)
    first, second = Reptile(small()), Reptile(small())
    first(e)
    assert any(value.any() for name, value in first.state_dict().items() if name.endswith("exp_avg_sq"))
    second.load_state_dict(first.state_dict())
    older = Reptile(small())
    older.load_state_dict({name: v for name, v in first.state_dict().items() if name.startswith("model.")})
    assert int(older.tasks_done) == 0
    values = []
    for method in (first, second, older, Reptile(small())):
        torch.manual_seed(0)
        values.append(method(e).item())
    assert values[0] == values[1] != values[2]
    assert values[2] == values[3]


@pytest.mark.parametrize(
    "make", [functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9), functools.partial(torch.optim.NAdam, lr=0.1)]
)
def test_the_state_of_any_optimizer_goes_on(make: Any) -> None:
    e = tasks(2)
    method = Reptile(small(), 3, inner_batch=None, inner_optimizer=make)
    method(e)
    state: dict[str, Any] = {}
    for i in range(2):
        copy, (x, y) = small(), whole(e, i)
        optimizer = make(copy.parameters())
        if state:
            optimizer.load_state_dict(state)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(copy(x), y).backward()
            optimizer.step()
        state = optimizer.state_dict()
    assert method._carried
    for place, key in method._carried:
        torch.testing.assert_close(
            getattr(method, f"inner_state_{place}_{key}"), state["state"][place][key], check_dtype=False
        )


def test_minibatches_are_shuffled_passes() -> None:
    torch.manual_seed(0)
    rows = [part.tolist() for part in minibatches(10, 9, 4, torch.device("cpu")) if isinstance(part, Tensor)]
    assert [len(part) for part in rows] == [4] * 9
    flat = [row for part in rows for row in part]
    passes = [flat[k : k + 10] for k in range(0, 30, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1]
    assert minibatches(10, 2, None, torch.device("cpu")) == [slice(None)] * 2
    assert [len(part) for part in minibatches(3, 2, 5, torch.device("cpu")) if isinstance(part, Tensor)] == [5, 5]


def moments_on_rank(runtime: Runtime) -> dict[str, Tensor]:
    e = tasks(2)
    method = Reptile(small(), 2, inner_batch=None, inner_optimizer=ADAM)
    runtime.wrap(method)(Episode(*(v[runtime.rank : runtime.rank + 1] for v in e[:4]))).backward()  # type: ignore[index]
    return method.state_dict()


def test_processes_average_their_moments(two_ranks: Any) -> None:
    states = two_ranks(moments_on_rank)
    each = []
    for i in range(2):
        method = Reptile(small(), 2, inner_batch=None, inner_optimizer=ADAM)
        method(Episode(*(v[i : i + 1] for v in tasks(2)[:4])))  # type: ignore[index]
        each.append(method.state_dict())
    for name in (n for n in each[0] if n.startswith("inner_state")):
        for state in states:
            torch.testing.assert_close(state[name], (each[0][name] + each[1][name]) / 2)
