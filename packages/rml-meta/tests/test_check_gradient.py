"""The check of meta-gradients: it passes what is right in every backend, and names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Episode, MetaGradientError, MetaLSTM, ProtoNet, Reptile, check_meta_gradient
from rml_meta.adaptation import Backend
from torch import Tensor, nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


def episode(*leading: int) -> Episode:
    generator = torch.Generator().manual_seed(1)
    x, q = torch.randn(2, *leading, 6, 8, generator=generator)
    y = torch.arange(6).expand(*leading, 6) % 3
    return Episode(x, y, q, y)


def test_every_backend_of_what_is_right() -> None:
    method = MAML(network(), 0.3, 2)
    before = {n: v.clone() for n, v in method.state_dict().items()}
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    found = check_meta_gradient(method, episode(2))
    assert torch.equal(torch.rand(1), expected)
    assert set(found) == {"loop", "grouped", "vmap", "higher", "recompute"} <= set(Backend.__args__)  # type: ignore[attr-defined]
    assert max(found.values()) < 1e-6
    assert all(torch.equal(v, before[n]) for n, v in method.state_dict().items())
    assert next(method.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "backends"),
    [
        (
            lambda: RML(network(), 0.3, 1, penalty="irmv1", anneal_steps=1),
            {"loop", "grouped", "vmap", "higher", "recompute"},
        ),
        (lambda: RML(network(), 0.3, 1, class_alignment="reheaded"), {"loop", "higher", "recompute"}),
        (lambda: MAML(network(), 0.3, 2, multi_step_epochs=3, learn_lr="per-step"), {"loop"}),
        (lambda: MAML(network(), 0.3, 1, backend="higher", inner_optimizer=adam), {"higher"}),
        (lambda: ProtoNet(network()), {"autograd"}),
    ],
)
def test_methods_and_their_backends(make: Any, backends: set[str]) -> None:
    found = check_meta_gradient(make(), episode(2, 2))
    assert set(found) == backends


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, 0.05)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return grad * x.detach().cos()  # right, but its own derivative is lost


class WrongTwice(nn.Module):
    """A layer whose second derivative is wrong, and the first right."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(_Doubled.apply(self.body(x)))  # type: ignore[arg-type]


def test_a_wrong_second_derivative_is_named() -> None:
    torch.manual_seed(0)
    method = MAML(WrongTwice(), 0.5, 2)
    with pytest.raises(MetaGradientError, match=r"backend 'loop' gives a wrong gradient of .* model\.body\.weight \("):
        check_meta_gradient(method, episode(1))
    x, y, *_ = (v[0] for v in episode(1)[:4])
    model = WrongTwice().double()
    assert torch.autograd.gradcheck(lambda v: F.cross_entropy(model(v), y), x.double().requires_grad_())


def test_the_fused_weight_norm_of_torch_is_found() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v, self.g = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.rand(3, 1) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return x @ torch._weight_norm(self.v, self.g, 0).T

    torch.manual_seed(0)
    with pytest.raises(MetaGradientError, match=r"model\.v|model\.g"):
        check_meta_gradient(MAML(Fused(), 0.5, 2), episode(1), backends=["loop"])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Reptile(network()), "the gradient of Reptile is no derivative"),
        (MetaLSTM(network(), 1), "the gradient of MetaLSTM is no derivative"),
        (MAML(network(), first_order=True), "of first order leaves derivatives out"),
    ],
)
def test_gradients_that_are_no_derivatives(method: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_meta_gradient(method, episode(1))


def test_a_backend_that_refuses() -> None:
    class Held(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * scale.exp()

    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    method = MAML(Held(8, 3), 0.3, 1)
    scale = scale * 1.0  # no leaf any more
    assert "recompute" not in check_meta_gradient(method, episode(1))
    with pytest.raises(ValueError, match="computed from others"):
        check_meta_gradient(method, episode(1), backends=["recompute"])
    with pytest.raises(ValueError, match="unknown backend 'lop'"):
        check_meta_gradient(method, episode(1), backends=["lop"])
