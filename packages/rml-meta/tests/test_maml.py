from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, Episode
from rml_meta.methods.maml import multi_step_weights
from torch import Tensor, nn

HIGHER = pytest.param("higher", marks=pytest.mark.skipif(not importlib.util.find_spec("higher"), reason="extra"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net().double()
    for p in net.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return net


def episodes(*leading: int, seed: int = 0) -> Episode:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*leading, 21, 5, generator=g, dtype=torch.float64)
    y = (torch.arange(21) % 3).expand(*leading, 21)
    return Episode(x[..., :6, :], y[..., :6], x[..., 6:, :], y[..., 6:])


Weights = dict[str, Tensor]


def forward(p: Weights, x: Tensor) -> Tensor:
    """The network written out, batch norm and all."""
    h = x @ p["body.0.weight"].T + p["body.0.bias"]
    h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
    h = (h * p["body.1.weight"] + p["body.1.bias"]).tanh()
    return h @ p["head.weight"].T + p["head.bias"]


def inner(
    p: Weights, x: Tensor, y: Tensor, steps: int = 2, lr: float = 0.1, moves: Callable = lambda n: True
) -> Weights:
    names = [n for n in p if moves(n)]
    for _ in range(steps):
        loss = F.cross_entropy(forward(p, x), y)
        grads = torch.autograd.grad(loss, [p[n] for n in names], create_graph=True)
        p = p | {n: p[n] - lr * g for n, g in zip(names, grads, strict=True)}
    return p


def cross(net: Net, e: Episode, i: int, j: int, **options: object) -> Tensor:
    adapted = inner(dict(net.named_parameters()), e.support_x[i], e.support_y[i], **options)  # type: ignore[arg-type]
    return F.cross_entropy(forward(adapted, e.query_x[j]), e.query_y[j])


def gradients(loss: Tensor, net: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad]))


def assert_same(loss: Tensor, expected: Tensor, net: nn.Module, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-12)
    for a, e in zip(gradients(loss, net), gradients(expected, net), strict=True):
        torch.testing.assert_close(a, e, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("backend", ["loop", "vmap", "recompute", HIGHER])
def test_meta_loss_is_the_formula(backend: str) -> None:
    net, e = network(), episodes(3)
    loss = MAML(net, 0.1, 2, backend=backend).meta_loss(e)
    assert_same(loss, sum(cross(net, e, i, i) for i in range(3)) / 3, net)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("adapted", "moves"),
    [("head", lambda n: n.startswith("head")), ("body", lambda n: n.startswith("body")), (lambda n: "bias" in n, None)],
)
def test_partial_adaptation(adapted: str | Callable, moves: Callable | None) -> None:
    net, e = network(), episodes(2)
    loss = MAML(net, 0.1, 2, adapted=adapted).meta_loss(e)
    chosen = moves or adapted
    assert_same(loss, sum(cross(net, e, i, i, moves=chosen) for i in range(2)) / 2, net)  # type: ignore[arg-type]


def test_any_leading_dimensions_and_sum() -> None:
    net, e = network(), episodes(2, 3)
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    lone = Episode(*(v[0] for v in flat[:4]))  # type: ignore[index]
    total = MAML(net, 0.1, 2, reduction="sum").meta_loss(flat)
    torch.testing.assert_close(MAML(net, 0.1, 2, reduction="sum").meta_loss(e), total)
    torch.testing.assert_close(MAML(net, 0.1, 2).meta_loss(e) * 6, total)
    torch.testing.assert_close(MAML(net, 0.1, 2).meta_loss(lone), cross(net, flat, 0, 0))


def test_learned_rates() -> None:
    net, e = network(), episodes(1)
    sgd = MAML(net, 0.1, 2, learn_lr="meta-sgd")
    step = MAML(net, 0.1, 2, learn_lr="per-step")
    assert_same(sgd.meta_loss(e), cross(net, e, 0, 0), net)
    assert_same(step.meta_loss(e), cross(net, e, 0, 0), net)
    assert [p.shape for p in sgd.rates] == [p.shape for p in net.parameters()]
    # a loss linear in one rate's small change: its gradient by central differences
    for maml in (sgd, step):
        rate = maml.rates[0]
        (grad,) = torch.autograd.grad(maml.meta_loss(e), rate)
        at = (0,) * rate.dim()
        values = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                rate[at] += h
            values.append(float(maml.meta_loss(e).detach()))
            with torch.no_grad():
                rate[at] -= h
        assert float(grad[at]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-10)


def test_more_steps_than_rates() -> None:
    net, e = network(), episodes(1)
    step = MAML(net, 0.1, 2, learn_lr="per-step", test_inner_steps=4)
    state = step.fit_support(e.support_x, e.support_y)
    expected = inner(dict(net.named_parameters()), e.support_x[0], e.support_y[0], steps=4)
    torch.testing.assert_close(step.predict(state, e.query_x)[0], forward(expected, e.query_x[0]).detach())


def test_norms_of_each_step() -> None:
    net, e = network(), episodes(1)
    reference = copy.deepcopy(net)
    maml = MAML(net, 0.1, 2, per_step_norm=True)
    assert not any("body.1" in n for n in maml.fast_names)
    tables = dict(zip(maml.table_names, maml.norm_tables, strict=True))
    with torch.no_grad():
        for table in tables.values():
            table += 0.3 * torch.randn_like(table)
    p = {n: v for n, v in reference.named_parameters() if "body.1" not in n}
    for k in range(2):
        row = {n: t[k] for n, t in tables.items()}
        loss = F.cross_entropy(forward(p | row, e.support_x[0]), e.support_y[0])
        grads = torch.autograd.grad(loss, list(p.values()), create_graph=True)
        p = {n: v - 0.1 * g for (n, v), g in zip(p.items(), grads, strict=True)}
    last = {n: t[2] for n, t in tables.items()}
    expected = F.cross_entropy(forward(p | last, e.query_x[0]), e.query_y[0])
    for backend in ("loop", "vmap", "recompute"):
        maml.backend = backend  # type: ignore[assignment]
        torch.testing.assert_close(maml.meta_loss(e), expected, rtol=1e-10, atol=1e-12)
        for a, b in zip(
            *(torch.autograd.grad(v, list(tables.values()), retain_graph=True) for v in (maml.meta_loss(e), expected)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_losses_of_all_steps_see_the_norms_of_their_step() -> None:
    net, e = network(), episodes(1)
    reference = copy.deepcopy(net)
    maml = MAML(net, 0.1, 2, per_step_norm=True, multi_step_epochs=4)
    tables = dict(zip(maml.table_names, maml.norm_tables, strict=True))
    with torch.no_grad():
        for table in tables.values():
            table += 0.3 * torch.randn_like(table)
    p = {n: v for n, v in reference.named_parameters() if "body.1" not in n}
    expected = torch.zeros((), dtype=torch.float64)
    for k, weight in enumerate(multi_step_weights(2, 0, 4)):
        row, after = ({n: t[place] for n, t in tables.items()} for place in (k, k + 1))
        loss = F.cross_entropy(forward(p | row, e.support_x[0]), e.support_y[0])
        grads = torch.autograd.grad(loss, list(p.values()), create_graph=True)
        p = {n: v - 0.1 * g for (n, v), g in zip(p.items(), grads, strict=True)}
        expected = expected + weight * F.cross_entropy(forward(p | after, e.query_x[0]), e.query_y[0])
    torch.testing.assert_close(maml.meta_loss(e), expected, rtol=1e-10, atol=1e-12)


def test_multi_step_loss() -> None:
    net, e = network(), episodes(2)
    maml = MAML(net, 0.1, 3, multi_step_epochs=10)
    maml.set_epoch(4)
    weights = multi_step_weights(3, 4, 10)
    expected = sum(w * cross(net, e, i, i, steps=k + 1) for k, w in enumerate(weights) for i in range(2))
    assert_same(maml.meta_loss(e), expected / 2, net)  # type: ignore[arg-type, operator]
    maml.set_epoch(10)
    assert_same(maml.meta_loss(e), sum(cross(net, e, i, i, steps=3) for i in range(2)) / 2, net)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_multi_step_weights(steps: int) -> None:
    assert multi_step_weights(steps, 0, 15) == pytest.approx([1 / steps] * steps)
    for epoch in range(20):
        weights = multi_step_weights(steps, epoch, 15)
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0.03 / steps - 1e-12
    assert multi_step_weights(steps, 15, 15)[:-1] == pytest.approx([0.03 / steps] * (steps - 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_steps": 0}, "inner_steps must be at least 1"),
        ({"learn_lr": "adam"}, "unknown learn_lr"),
        ({"reduction": "max"}, "unknown reduction"),
        ({"multi_step_epochs": 3, "backend": "vmap"}, "needs the iterates of backend 'loop'"),
        ({"per_step_norm": True, "adapted": lambda n: "body.1" in n}, "leaves nothing to adapt"),
        (
            {"backend": "higher", "inner_optimizer": torch.optim.SGD, "learn_lr": "meta-sgd"},
            "leave out inner_optimizer",
        ),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(network(), **({"inner_lr": 0.1} | options))


def test_wrong_shapes() -> None:
    e = episodes(2)
    with pytest.raises(ValueError, match=r"query_x .* does not fit query_y"):
        MAML(network()).meta_loss(e._replace(query_x=e.query_x[:, :3]))
    with pytest.raises(ValueError, match="leading dimensions"):
        MAML(network()).meta_loss(e._replace(query_x=e.query_x[0], query_y=e.query_y[0]))
