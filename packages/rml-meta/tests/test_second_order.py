"""Second derivatives through what torch draws at random, holds in closures, or cannot differentiate twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, Episode, adapt, check_meta_gradient
from rml_meta.adaptation import dispatch
from rml_meta.adaptation.closure import Rng, foreign_leaves, graph_mark
from rml_meta.adaptation.compiled import adapt_compiled
from rml_meta.adaptation.second_order import normed_weight, twice_differentiable
from torch import Tensor, nn

D = torch.float64


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.first(x).tanh(), 0.5, self.training))


class AttentionDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None] * torch.linspace(0.5, 1.5, 4, dtype=x.dtype)[:, None]
        return self.head(self.attention(x, x, x)[0].mean(1))


class DropPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand(len(x), 1, dtype=x.dtype) < 0.6 if self.training else 1.0
        return self.head(x + kept * self.first(x).tanh() / 0.6)


class NoisyWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.head.weight + 0.3 * torch.randn_like(self.head.weight), self.head.bias).sin()


def module_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))


RANDOM = [FunctionalDropout, AttentionDropout, DropPath, NoisyWeights, module_dropout]


def episode(tasks: int = 1) -> Episode:
    generator = torch.Generator().manual_seed(0)
    x, q = torch.randn(2, tasks, 6, 8, generator=generator, dtype=D)
    y = torch.arange(3).repeat(tasks, 2)
    return Episode(x, y, q, y)


def meta_gradient(model: nn.Module, backend: Any, steps: int = 3, **options: Any) -> Tensor:
    torch.manual_seed(5)
    loss = MAML(model, 0.5, steps, backend=backend, **options).training_loss(episode())
    torch.rand(7)  # what the program draws in between must not matter
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


@pytest.mark.parametrize("make", RANDOM)
def test_recompute_draws_the_same_random_numbers_again(make: Any) -> None:
    torch.manual_seed(0)
    model = make().to(D).train()
    assert not torch.allclose(meta_gradient(model, "loop"), meta_gradient(model.eval(), "loop"), rtol=1e-2) or (
        make is NoisyWeights  # which knows no evaluation
    )
    model.train()
    torch.testing.assert_close(meta_gradient(model, "recompute"), meta_gradient(model, "loop"), rtol=1e-10, atol=1e-12)


def test_recompute_leaves_the_generators_as_they_were() -> None:
    model = module_dropout().to(D)
    after = {}
    for backend in ("loop", "recompute"):
        meta_gradient(model, backend)
        after[backend] = torch.rand(1).item()
    assert after["recompute"] == after["loop"]


def test_recompute_notices_a_generator_of_the_models_own() -> None:
    class Own(NoisyWeights):
        generator = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            noise = torch.randn(self.head.weight.shape, generator=self.generator, dtype=D)
            return F.linear(x, self.head.weight + 0.3 * noise, self.head.bias)

    with pytest.raises(RuntimeError, match="draws at random from a generator of its own"):
        meta_gradient(Own().to(D), "recompute")


def test_recompute_notices_a_model_that_changed_in_between() -> None:
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5)).to(D)
    x, y, *_ = (v[0] for v in episode()[:4])
    out = adapt(model, x, y, steps=2, lr=0.5, backend="recompute")
    model.eval()
    with pytest.raises(RuntimeError, match="it changed since the forward pass"):
        sum(p.sum() for p in out.values()).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("backend", ["loop", "vmap", "higher", "recompute"])
def test_tensors_held_by_the_loss_or_the_model_get_their_gradient(backend: Any) -> None:
    torch.manual_seed(0)
    weight, temperature = (torch.tensor(v, dtype=D, requires_grad=True) for v in (1.3, 0.7))

    class Tempered(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * temperature  # no parameter of the module

    model = Tempered(8, 3).to(D)
    x, y, q, qy = (v[0] for v in episode()[:4])

    def value() -> Tensor:
        out = adapt(model, x, y, steps=3, lr=0.4, backend=backend, loss_fn=lambda o, t: weight * F.cross_entropy(o, t))
        return F.cross_entropy(q @ out["weight"].T, qy)

    grads = torch.autograd.grad(value(), [weight, temperature])
    for held, grad in zip((weight, temperature), grads, strict=True):
        with torch.no_grad():
            ends = []
            for shift in (1e-5, -2e-5, 1e-5):
                held += shift
                ends.append(value().item())
        assert grad.item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_recompute_refuses_a_held_tensor_that_is_no_leaf() -> None:
    weight = torch.ones((), dtype=D, requires_grad=True).exp()
    x, y, *_ = (v[0] for v in episode()[:4])
    with pytest.raises(ValueError, match="computed from others"):
        adapt(nn.Linear(8, 3).to(D), x, y, steps=1, lr=0.1, backend="recompute", loss_fn=lambda o, t: weight * o.sum())


def test_compiled_refuses_held_tensors_and_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "adapt_compiled", lambda loop, x, y: adapt_compiled(loop, x, y, "eager"))
    weight = torch.ones((), dtype=D, requires_grad=True)
    x, y, *_ = (v[0] for v in episode()[:4])
    with pytest.raises(ValueError, match=r"holds tensors that need a gradient \(shapes \(\)\)"):
        adapt(nn.Linear(8, 3).to(D), x, y, steps=1, lr=0.1, backend="compiled", loss_fn=lambda o, t: weight * o.sum())
    with pytest.raises(ValueError, match="draws at random"):
        adapt(module_dropout().to(D), x, y, steps=1, lr=0.1, backend="compiled")


def test_foreign_leaves() -> None:
    mark = graph_mark()
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    assert foreign_leaves((a * b).sum() + (c * c).sum(), [a], mark) == [c, b]
    assert foreign_leaves(a.sum(), [a], mark) == []


def test_rng() -> None:
    before = Rng(torch.zeros(1))
    first = torch.rand(3)
    assert before != Rng(torch.zeros(1))
    state = torch.get_rng_state()
    with before.replayed():
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def weight_normed(kind: str) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        layers = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(8, 3)).to(D)
    if kind == "new":
        for layer in (layers[0], layers[2]):
            nn.utils.parametrizations.weight_norm(layer)
    elif kind == "new, one norm":
        nn.utils.parametrizations.weight_norm(layers[2], dim=None)  # type: ignore[arg-type]
    else:
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(layers[2])
    return nn.Sequential(nn.Unflatten(1, (2, 4)), layers)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *[(kind, backend) for kind in ("new", "new, one norm") for backend in ("loop", "vmap", "higher", "recompute")],
        *[("old", backend) for backend in ("loop", "higher", "recompute")],  # torch cannot copy such a module for vmap
    ],
)
def test_weight_norm_against_central_differences(kind: str, backend: Any) -> None:
    model = weight_normed(kind)
    parameters = list(model.parameters())
    method = MAML(model, 0.5, 2, backend=backend)
    grads = torch.autograd.grad(method.training_loss(episode()), parameters)
    torch.manual_seed(2)
    along = [torch.randn_like(p) for p in parameters]
    ends = []
    for shift in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(parameters, along, strict=True):
                p += shift * d
        ends.append(method.training_loss(episode()).item())
    slope = sum((g * d).sum().item() for g, d in zip(grads, along, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_weight_norm_is_torchs_and_comes_back() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    part = layer.parametrizations.weight[0]  # type: ignore[index]
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1  # type: ignore[union-attr]
    with twice_differentiable(layer), twice_differentiable(layer):
        assert "forward" in vars(part)
        torch.testing.assert_close(layer.weight, normed_weight(g, v, 0))
    assert "forward" not in vars(part)
    torch.testing.assert_close(layer.weight, torch._weight_norm(v, g, 0))


@pytest.mark.parametrize("backend", ["loop", "recompute", "higher"])
def test_second_order_through_attention(backend: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x[:, None] * torch.arange(1, 5)[:, None]).mean(1))

    torch.manual_seed(0)
    model = Net().to(D)
    method = MAML(model, 0.1, 2, backend=backend)
    weight = model.encoder.linear1.weight
    (grad,) = torch.autograd.grad(method.training_loss(episode()), [weight])
    along = torch.randn_like(weight)
    ends = []
    for shift in (1e-6, -2e-6):
        with torch.no_grad():
            weight += shift * along
        ends.append(method.training_loss(episode()).item())
    assert (grad * along).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("backend", ["loop", "recompute", "higher", "vmap", "grouped"])
def test_second_order_through_hardsigmoid(backend: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Hardsigmoid(), nn.Linear(6, 3)).to(D)
    y = torch.arange(3).repeat(2, 2)
    episode = Episode(3 * torch.randn(2, 6, 8, dtype=D), y, 3 * torch.randn(2, 6, 8, dtype=D), y)
    found = check_meta_gradient(MAML(net, 0.5, 2), episode, backends=[backend])
    assert found[backend] < 1e-5
    x = 4 * torch.randn(9, dtype=D)
    before = net[2](x)
    with twice_differentiable(net):
        torch.testing.assert_close(net[2](x), before, rtol=1e-12, atol=1e-12)
    assert "forward" not in vars(net[2])
