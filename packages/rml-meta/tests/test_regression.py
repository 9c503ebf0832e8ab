"""Other losses than cross-entropy: the sinusoids of Finn et al. 2017, targets of several shapes, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Episode, MetaLSTM, Reptile, adapt, evaluate_episodes
from torch import Tensor, nn


def sinusoids(count: int, generator: torch.Generator, shots: int = 10) -> Episode:
    """Tasks y = a sin(x + phase): a in [0.1, 5], the phase in [0, pi], x in [-5, 5]."""
    a, phase = (
        torch.rand(2, count, 1, 1, generator=generator) * torch.tensor([4.9, torch.pi])[:, None, None, None]
    ).unbind()
    x = 10 * torch.rand(count, 2 * shots, 1, generator=generator) - 5
    y = (a + 0.1) * (x + phase).sin()
    return Episode(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def network(width: int = 40) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def error(method: Any, e: Episode) -> float:
    """Mean squared error on the query sets."""
    return F.mse_loss(method.predict(method.fit_support(e.support_x, e.support_y), e.query_x), e.query_y).item()


def test_maml_learns_to_fit_sinusoids() -> None:
    generator = torch.Generator().manual_seed(0)
    test = sinusoids(100, generator)
    method = MAML(network(), inner_lr=0.01, inner_steps=1, test_inner_steps=5, loss_fn=F.mse_loss)
    before = error(method, test)
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        method.training_loss(sinusoids(5, generator)).backward()
        optimizer.step()
    flat = MAML(network(), inner_lr=0.01, inner_steps=1, test_inner_steps=5, loss_fn=F.mse_loss)
    assert before == error(flat, test)
    mean_alone = test.query_y.square().mean().item()  # of the best answer without adaptation, which is 0
    assert error(method, test) < 0.6 * mean_alone < 0.8 * before


@pytest.mark.parametrize("backend", ["loop", "vmap", "higher", "recompute"])
def test_loss_of_maml_by_hand(backend: Any) -> None:
    e = sinusoids(3, torch.Generator().manual_seed(1))
    model = network(8)
    losses = []
    for i in range(3):
        fast = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
        for _ in range(2):
            loss = F.mse_loss(torch.func.functional_call(model, fast, (e.support_x[i],)), e.support_y[i])
            grads = torch.autograd.grad(loss, list(fast.values()))
            fast = {n: (p - 0.05 * g).detach().requires_grad_() for (n, p), g in zip(fast.items(), grads, strict=True)}
        losses.append(F.mse_loss(torch.func.functional_call(model, fast, (e.query_x[i],)), e.query_y[i]).item())
    method = MAML(model, 0.05, 2, backend=backend, loss_fn=F.mse_loss)
    assert method.training_loss(e).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize("kind", ["rml", "rml vrex", "reptile", "metalstm", "maml multi-step"])
def test_every_gradient_method_takes_a_loss(kind: str) -> None:
    make = {
        "rml": lambda m: RML(m, 0.01, 1, loss_fn=F.mse_loss),
        "rml vrex": lambda m: RML(m, 0.01, 1, loss_fn=F.mse_loss, penalty="vrex"),
        "reptile": lambda m: Reptile(m, 4, 8, loss_fn=F.mse_loss),
        "metalstm": lambda m: MetaLSTM(m, 3, loss_fn=F.mse_loss),
        "maml multi-step": lambda m: MAML(m, 0.01, 2, loss_fn=F.mse_loss, multi_step_epochs=2),
    }[kind]
    method = make(network(8))
    e = sinusoids(4, torch.Generator().manual_seed(2))
    if kind.startswith("rml"):
        e = Episode(*(v.unflatten(0, (2, 2)) for v in e[:4]))  # type: ignore[union-attr]
    loss = method.training_loss(e)
    loss.backward()
    assert 0.05 < loss.item() < 30
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.model.parameters())
    predicted = method.predict(method.fit_support(e.support_x, e.support_y), e.query_x)
    assert predicted.shape == e.query_y.shape


def test_targets_without_a_dimension_of_their_own() -> None:
    e = sinusoids(3, torch.Generator().manual_seed(3))
    flat = e._replace(support_y=e.support_y[..., 0], query_y=e.query_y[..., 0])
    values = [
        MAML(network(8), 0.01, 1, loss_fn=F.mse_loss).training_loss(e),
        MAML(nn.Sequential(network(8), nn.Flatten(0)), 0.01, 1, loss_fn=F.mse_loss).training_loss(flat),
    ]
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize(
    ("x", "y", "tasks"),
    [
        ((10, 1), (10, 1), None),
        ((10, 1), (10,), None),
        ((4, 10, 1), (4, 10, 1), 4),
        ((4, 10, 3), (4, 10), 4),
        ((10, 3, 8, 8), (10, 3), None),  # three numbers an image of three channels
        ((10, 1, 8, 8), (10, 1), None),
        ((4, 10, 3, 8, 8), (4, 10, 3), 4),
        ((4, 10, 3, 8, 8), (4, 10), 4),
    ],
)
def test_shapes_of_targets(x: tuple[int, ...], y: tuple[int, ...], tasks: int | None) -> None:
    from rml_meta.episode import leading_of

    assert leading_of(torch.zeros(x), torch.zeros(y)) == (() if tasks is None else (tasks,))


def test_targets_that_are_no_classes_need_a_loss() -> None:
    e = sinusoids(2, torch.Generator().manual_seed(0))
    for method in (MAML(network(4)), Reptile(network(4)), MetaLSTM(network(4), 1), RML(network(4), pairing="diagonal")):
        with pytest.raises(ValueError, match="takes int64 class labels: give loss_fn="):
            method.training_loss(e)
    with pytest.raises(ValueError, match="int64 class labels"):
        adapt(network(4), e.support_x[0], e.support_y[0], steps=1, lr=0.1)


def test_refused_losses() -> None:
    e = sinusoids(2, torch.Generator().manual_seed(0))
    flat = e._replace(support_y=e.support_y[..., 0], query_y=e.query_y[..., 0])
    with pytest.raises(ValueError, match=r"targets \(10,\) do not fit outputs \(10, 1\)"):
        MAML(network(4), loss_fn=F.mse_loss).training_loss(flat)
    with pytest.raises(ValueError, match=r"a loss of shape \(10, 1\): expected one number"):
        MAML(network(4), loss_fn=nn.MSELoss(reduction="none")).training_loss(e)
    with pytest.raises(ValueError, match="'irmv1' is that of cross-entropy"):
        RML(network(4), penalty="irmv1", loss_fn=F.mse_loss)
    with pytest.raises(ValueError, match="these episodes have floating-point targets"):
        evaluate_episodes(MAML(network(4), loss_fn=F.mse_loss), [e])


def test_a_loss_with_parameters_is_trained() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.weight * F.mse_loss(outputs, targets)

    e = sinusoids(2, torch.Generator().manual_seed(0))
    grads = []
    for backend in ("loop", "recompute"):
        method = MAML(network(8), 0.05, 2, backend=backend, loss_fn=Weighted())
        assert "loss_fn.weight" in dict(method.named_parameters())
        method.training_loss(e).backward()
        grads.append(method.loss_fn.weight.grad.item())  # type: ignore[union-attr]
    assert grads[0] == pytest.approx(grads[1], rel=1e-5)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_rates_that_are_none(rate: float) -> None:
    x, y = torch.rand(6, 1), torch.arange(6) % 2
    with pytest.raises(ValueError, match="expected a finite rate of 0 or more"):
        MAML(nn.Linear(1, 2), inner_lr=rate)
    for lr in (rate, [0.1, rate], {"weight": rate, "bias": 0.1}):
        with pytest.raises(ValueError, match="expected a finite rate of 0 or more"):
            adapt(nn.Linear(1, 2), x, y, steps=2, lr=lr)  # type: ignore[arg-type]
