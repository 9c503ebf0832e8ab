"""The backward pass task by task: the same loss and gradient, at the memory of one task's graph."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Episode
from torch import Tensor, nn

D = torch.float64


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 3)).to(D)


def tasks(*leading: int) -> Episode:
    x, q = torch.randn(2, *leading, 6, 8, generator=torch.Generator().manual_seed(1), dtype=D)
    y = torch.arange(6).expand(*leading, 6) % 3
    return Episode(x, y, q, y)


def found(make: Any, by_task: bool, e: Episode) -> list[Tensor]:
    method = make(network(), by_task)
    torch.manual_seed(3)
    loss = method.training_loss(e)
    grads = torch.autograd.grad(2 * loss, [p for p in method.parameters() if p.requires_grad], allow_unused=True)
    assert method.by_task is by_task
    return [loss.detach(), *(g for g in grads if g is not None)]


@pytest.mark.parametrize(
    "make",
    [
        lambda m, by: MAML(m, 0.3, 2, by_task=by),
        lambda m, by: MAML(m, 0.3, 2, by_task=by, reduction="sum", learn_lr="meta-sgd"),
        lambda m, by: MAML(m, 0.3, 2, by_task=by, backend="recompute"),
        lambda m, by: MAML(m, 0.3, 2, by_task=by, backend="higher"),
        lambda m, by: MAML(m, 0.3, 2, by_task=by, multi_step_epochs=3, per_step_norm=True),
        lambda m, by: MAML(m, 0.3, 2, by_task=by, first_order=True),
        lambda m, by: RML(m, 0.3, 2, by_task=by),
        lambda m, by: RML(m, 0.3, 2, by_task=by, include_self=True, reduction="sum"),
        lambda m, by: RML(m, 0.3, 2, by_task=by, penalty="std", penalty_weight=0.5),
    ],
)
def test_loss_and_gradient_are_those_of_one_graph(make: Any) -> None:
    e = tasks(2, 3)
    for one, other in zip(found(make, True, e), found(make, False, e), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def kept_bytes(by_task: bool, count: int) -> int:
    method, e = MAML(network(), 0.1, 10, by_task=by_task), tasks(count)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.nbytes), t)[1], lambda t: t):
        alive: list[int] = []
        original = MAML.losses_of_task

        def counted(self: MAML, *arguments: Any) -> Tensor:
            sizes.clear()  # what the tasks before kept is gone, if each has had its backward pass
            out = original(self, *arguments)
            alive.append(sum(sizes))
            return out

        MAML.losses_of_task = counted  # type: ignore[method-assign]
        try:
            method.training_loss(e)
        finally:
            MAML.losses_of_task = original  # type: ignore[method-assign]
    return max(alive) if by_task else sum(sizes)


def test_one_tasks_graph_is_kept_instead_of_all() -> None:
    assert kept_bytes(True, 6) == pytest.approx(kept_bytes(True, 2), rel=0.05)
    assert kept_bytes(False, 6) > 5 * kept_bytes(True, 6)


def test_held_tensors_get_their_gradient_from_one_graph() -> None:
    weight = torch.tensor(1.5, dtype=D, requires_grad=True)
    method = MAML(network().eval(), 0.3, 2, loss_fn=lambda o, t: weight * F.cross_entropy(o, t))
    (grad,) = torch.autograd.grad(method.training_loss(tasks(3)), [weight])
    assert method.by_task is False
    ends = []
    for shift in (1e-6, -2e-6):
        with torch.no_grad():
            weight += shift
        ends.append(method.training_loss(tasks(3)).item())
    assert grad.item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_inputs_own_gradient_is_kept() -> None:
    e = tasks(2)
    x = e.query_x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(MAML(network(), 0.3, 1).training_loss(e._replace(query_x=x)), [x])
    assert grad.any()


def test_a_method_can_be_sent_elsewhere_after_use() -> None:
    for backend in ("vmap", "grouped", "loop"):
        method = MAML(network().eval(), 0.3, 1, backend=backend)  # type: ignore[arg-type]
        value = method.training_loss(tasks(2))
        again = pickle.loads(pickle.dumps(method))  # noqa: S301 - written a line before
        assert torch.equal(again.training_loss(tasks(2)), value)
