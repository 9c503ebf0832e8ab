from __future__ import annotations

import functools
import gc
import importlib.util
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rml_meta import adapt
from rml_meta.adaptation import InnerProblem, dispatch
from rml_meta.adaptation.compiled import adapt_compiled
from rml_meta.adaptation.norms import batch_statistics
from rml_meta.adaptation.problem import InnerLoop
from rml_meta.adaptation.stacked import adapt_stacked
from rml_meta.adaptation.stateless import stateless_call
from torch import Tensor, nn

needs_higher = pytest.mark.skipif(importlib.util.find_spec("higher") is None, reason="needs the extra `higher`")
EAGER = ["recompute", "vmap", pytest.param("higher", marks=needs_higher)]


class RandomNet(nn.Module):
    """A small network drawn from a seed: linear or convolutional, any norm, weights tied or unused."""

    def __init__(self, seed: int, smooth: bool = False) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        pick = lambda *options: options[int(torch.randint(len(options), (), generator=g))]  # noqa: E731
        self.conv = seed % 3 == 0
        self.first = nn.Conv1d(2, 6, 3, padding=1) if self.conv else nn.Linear(8, 6)
        self.blocks = nn.ModuleList()
        layer = nn.Conv1d(6, 6, 3, padding=1) if self.conv else nn.Linear(6, 6)
        for number in range(2):
            if number and seed % 2:  # else the second block uses the first's weights again
                layer = nn.Conv1d(6, 6, 3, padding=1) if self.conv else nn.Linear(6, 6)
            activation = nn.Tanh() if smooth else pick(nn.Tanh(), nn.ReLU(), nn.Softplus())
            self.blocks.append(
                nn.Sequential(layer, self.norm(["bn", "ln", "gn", "in"][(seed + number) % 4]), activation)
            )
        self.head = nn.Linear(24 if self.conv else 6, 3)
        self.unused = nn.Linear(2, 2)

    def norm(self, kind: str) -> nn.Module:
        if kind == "bn":
            return nn.BatchNorm1d(6)
        if kind == "gn":
            return nn.GroupNorm(2, 6)
        if kind == "in" and self.conv:
            return nn.InstanceNorm1d(6, affine=True)
        return nn.LayerNorm([6, 4] if self.conv else 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.view(-1, 2, 4) if self.conv else x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.flatten(1))


def network(seed: int, smooth: bool = False) -> RandomNet:
    torch.manual_seed(seed)
    net = RandomNet(seed, smooth).double()
    for p in net.parameters():  # norms must not sit at 1 and 0
        p.data += 0.2 * torch.randn_like(p)
    return net


def task(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(15, 8, generator=g, dtype=torch.float64)
    y = torch.arange(15) % 3
    return x[:6], y[:6], x[6:], y[6:]


def query_loss(model: nn.Module, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    with batch_statistics(model):
        return F.cross_entropy(stateless_call(model, params, x), y)


def meta_gradient(model: nn.Module, wanted: list[Tensor], **options: object) -> tuple[Tensor, list[Tensor]]:
    sx, sy, qx, qy = task()
    loss = query_loss(model, adapt(model, sx, sy, **options), qx, qy)  # type: ignore[arg-type]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return loss.detach(), [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads, strict=True)]


def assert_equal(actual: tuple, expected: tuple) -> None:
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-9, atol=1e-12)
    for a, e in zip(actual[1], expected[1], strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-11)


def half_square(out: Tensor, y: Tensor) -> Tensor:
    return (out[:, 0] - y).square().mean() / 2


@pytest.mark.parametrize("backend", ["loop", *EAGER])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_closed_form_on_quadratics(backend: str, steps: int) -> None:
    # with loss |X w - y|^2 / 2n the inner map is affine: w -> (I - a A) w + a b, and so is its derivative
    torch.manual_seed(3)
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    target = torch.randn(4, dtype=torch.float64)
    out = adapt(model, x, y, steps=steps, lr=0.1, loss_fn=half_square, backend=backend)  # type: ignore[arg-type]
    (out["weight"][0] @ target).backward()
    a, b = x.T @ x / 7, x.T @ y / 7
    shrink = torch.eye(4, dtype=torch.float64) - 0.1 * a
    expected = model.weight.detach()[0]
    for _ in range(steps):
        expected = shrink @ expected + 0.1 * b
    torch.testing.assert_close(out["weight"][0], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        model.weight.grad[0],  # type: ignore[index]
        torch.linalg.matrix_power(shrink, steps) @ target,
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("backend", EAGER)
@pytest.mark.parametrize("seed", range(24))
def test_backends_agree(seed: int, backend: str) -> None:
    model = network(seed)
    lr = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    wanted = [*model.parameters(), lr]
    options = {"steps": 3, "lr": lr}
    assert_equal(meta_gradient(model, wanted, backend=backend, **options), meta_gradient(model, wanted, **options))


@pytest.mark.parametrize("backend", EAGER)
@pytest.mark.parametrize("adapted", ["head", "body", lambda name: "weight" in name])
def test_backends_agree_on_parts_and_rates(backend: str, adapted: str | Callable) -> None:
    model = network(0)
    rates = [
        {n: torch.full_like(p, 0.1 + 0.05 * k).requires_grad_() for n, p in model.named_parameters()} for k in (0, 1)
    ]
    wanted = [*model.parameters(), *(r for of_step in rates for r in of_step.values())]
    options = {"steps": 3, "lr": rates, "adapted": adapted}
    assert_equal(meta_gradient(model, wanted, backend=backend, **options), meta_gradient(model, wanted, **options))


@pytest.mark.parametrize("backend", EAGER)
def test_backends_agree_in_first_order(backend: str) -> None:
    model = network(5)
    options = {"steps": 3, "lr": 0.2, "first_order": True}
    wanted = list(model.parameters())
    assert_equal(meta_gradient(model, wanted, backend=backend, **options), meta_gradient(model, wanted, **options))


def test_compiled_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    # a compiler that only traces: what is tested is the graph, derivative included
    monkeypatch.setattr(dispatch, "adapt_compiled", functools.partial(adapt_compiled, compiler="aot_eager"))
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    lr = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    wanted = [*model.parameters(), lr]
    expected = meta_gradient(model, wanted, steps=2, lr=lr)
    assert_equal(meta_gradient(model, wanted, steps=2, lr=lr, backend="compiled"), expected)
    from torch._dynamo.utils import counters

    graphs = counters["stats"]["unique_graphs"]
    other = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)  # another rate is no other graph
    wanted[-1] = other
    expected = meta_gradient(model, wanted, steps=2, lr=other)
    assert_equal(meta_gradient(model, wanted, steps=2, lr=other, backend="compiled"), expected)
    assert counters["stats"]["unique_graphs"] == graphs > 0


def test_first_order_is_the_gradient_at_the_end() -> None:
    model = network(4)
    sx, sy, qx, qy = task()
    _, grads = meta_gradient(model, list(model.parameters()), steps=3, lr=0.2, first_order=True)
    params = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    for _ in range(3):
        inner = torch.autograd.grad(query_loss(model, params, sx, sy), list(params.values()), allow_unused=True)
        params = {
            n: (p - 0.2 * (0 if g is None else g)).detach().requires_grad_()
            for (n, p), g in zip(params.items(), inner, strict=True)
        }
    expected = torch.autograd.grad(query_loss(model, params, qx, qy), list(params.values()), allow_unused=True)
    for a, e in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if e is None else e, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_central_differences(seed: int) -> None:
    model = network(seed, smooth=True)
    named = dict(model.named_parameters())
    _, grads = meta_gradient(model, list(named.values()), steps=2, lr=0.1)
    sx, sy, qx, qy = task()
    g = torch.Generator().manual_seed(seed)
    for _ in range(3):
        direction = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in named.items()}

        def along(step: float, direction: dict[str, Tensor] = direction) -> float:
            params = {n: p.detach() + step * direction[n] for n, p in named.items()}
            with torch.no_grad():
                return float(query_loss(model, adapt(model, sx, sy, steps=2, lr=0.1, params=params), qx, qy))

        h = 2e-5  # fourth-order differences
        numeric = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        exact = sum(float((gr * direction[n]).sum()) for n, gr in zip(named, grads, strict=True))
        assert numeric == pytest.approx(exact, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), nn.LayerNorm(6)])
def test_why_vmap_replaces_affine_norms(norm: nn.Module) -> None:
    # torch's own batching of stock affine norms loses second derivatives without a sign of it: if this fails,
    # torch has been mended and `split_affine` is no longer needed
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), norm, nn.Tanh(), nn.Linear(6, 3)).double()
    if isinstance(norm, nn.BatchNorm1d):
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    sx, sy, qx, qy = task()
    wanted = list(model.parameters())
    exact = meta_gradient(model, wanted, steps=3, lr=0.3)
    ours = meta_gradient(model, wanted, steps=3, lr=0.3, backend="vmap")
    rates = [dict.fromkeys(dict(model.named_parameters()), 0.3)] * 3
    loop = InnerLoop(InnerProblem(model), dict(model.named_parameters()), {}, rates)
    stacked = adapt_stacked(loop, sx[None], sy[None])
    loss = query_loss(model, {n: p[0] for n, p in stacked.items()}, qx, qy)
    stock = torch.autograd.grad(loss, wanted)
    torch.testing.assert_close(loss, exact[0])  # the value gives nothing away
    wrong = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(stock, exact[1], strict=True))
    assert wrong > 1e-4
    assert_equal(ours, exact)


def test_vmap_refuses_synchronised_norms() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.SyncBatchNorm(6), nn.Linear(6, 3)).double()
    sx, sy, *_ = task()
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        adapt(model, sx, sy, steps=1, lr=0.1, backend="vmap")


class Held:
    """A tensor that a graph keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(backend: str, steps: int, model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Size of what the graph behind the adapted parameters keeps alive."""
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Held:
        holder = Held(tensor.detach())
        held.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        out = adapt(model, x, y, steps=steps, lr=0.1, backend=backend)  # type: ignore[arg-type]
    gc.collect()
    size = sum(h.tensor.numel() * h.tensor.element_size() for h in held)
    assert out
    return size


def test_recompute_keeps_parameters_only() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(300, 8), torch.arange(300) % 3
    size = sum(p.numel() * 4 for p in model.parameters())
    few, many = (kept_bytes("recompute", steps, model, x, y) for steps in (2, 9))
    assert many - few == 7 * size  # one iterate a step, and nothing of the 300 samples
    few, many = (kept_bytes("loop", steps, model, x, y) for steps in (2, 9))
    assert many - few > 7 * 300 * 16 * 4


def test_recompute_keeps_autocast() -> None:
    model = network(0).float()
    x, y, *_ = (v.float() if v.is_floating_point() else v for v in task())
    seen = []
    model.first.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = adapt(model, x, y, steps=2, lr=0.1, backend="recompute")
    assert seen == [torch.bfloat16] * 2
    sum(p.sum() for p in out.values()).backward()  # type: ignore[union-attr]  # outside of the context
    assert seen == [torch.bfloat16] * 4


@pytest.mark.parametrize("backend", ["recompute", "compiled"])
def test_backends_that_compute_again_refuse_a_support_set_that_needs_a_gradient(backend: str) -> None:
    model = nn.Linear(8, 3).double()
    x, y, *_ = task()
    with pytest.raises(ValueError, match="no gradient of the support inputs"):
        adapt(model, x.clone().requires_grad_(), y, steps=1, lr=0.1, backend=backend)
    soft = F.one_hot(y, 3).double().requires_grad_()
    with pytest.raises(ValueError, match="no gradient of the support targets"):
        adapt(model, x, soft, steps=1, lr=0.1, backend=backend, loss_fn=nn.CrossEntropyLoss())


@pytest.mark.parametrize("backend", ["loop", *EAGER])
def test_no_graph_and_no_change_without_gradients(backend: str) -> None:
    model = network(0)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    sx, sy, *_ = task()
    with torch.no_grad():
        out = adapt(model, sx, sy, steps=2, lr=0.1, backend=backend)  # type: ignore[arg-type]
    expected = adapt(model, sx, sy, steps=2, lr=0.1)
    for n, p in out.items():
        assert p.grad_fn is None
        torch.testing.assert_close(p, expected[n], rtol=1e-10, atol=1e-12)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]


@pytest.mark.parametrize("backend", ["loop", *EAGER])
def test_many_tasks_are_each_adapted(backend: str) -> None:
    model = network(0)
    tasks = [task(seed)[:2] for seed in (1, 2, 3)]
    x, y = (torch.stack(part) for part in zip(*tasks, strict=True))
    out = adapt(model, x, y, steps=2, lr=0.1, backend=backend)  # type: ignore[arg-type]
    for i, (sx, sy) in enumerate(tasks):
        for n, p in adapt(model, sx, sy, steps=2, lr=0.1).items():
            torch.testing.assert_close(out[n][i], p, rtol=1e-9, atol=1e-12)


@needs_higher
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        functools.partial(torch.optim.Adagrad, lr=0.05),
        functools.partial(torch.optim.Adam, lr=0.01, eps=1e-16),
    ],
)
def test_higher_steps_as_torch(optimizer: Callable, first_order: bool) -> None:
    model = network(2)
    sx, sy, *_ = task()
    options = {"steps": 3, "lr": None, "backend": "higher", "first_order": first_order}
    out = adapt(model, sx, sy, inner_optimizer=optimizer, **options)
    named = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    stepper = optimizer(list(named.values()))
    for _ in range(3):
        stepper.zero_grad()
        query_loss(model, named, sx, sy).backward()
        stepper.step()
    for n, p in named.items():
        torch.testing.assert_close(out[n], p, rtol=1e-6, atol=1e-8, msg=n)
    assert any(p.requires_grad for p in out.values())


@needs_higher
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (functools.partial(torch.optim.SGD, lr=0.1, maximize=True), "higher ignores maximize=True"),
        (functools.partial(torch.optim.Adam, lr=0.1, decoupled_weight_decay=True), "ignores decoupled_weight_decay"),
        (functools.partial(torch.optim.AdamW, lr=0.1), "no differentiable AdamW: expected one of ASGD"),
        (functools.partial(torch.optim.Rprop, lr=0.1), "Rprop goes by the sign"),
    ],
)
def test_higher_refuses_what_it_computes_wrongly(optimizer: Callable, message: str) -> None:
    sx, sy, *_ = task()
    with pytest.raises(ValueError, match=message):
        adapt(network(2), sx, sy, steps=1, lr=None, backend="higher", inner_optimizer=optimizer)


def test_higher_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "higher", None)
    sx, sy, *_ = task()
    with pytest.raises(ModuleNotFoundError, match="pip install higher"):
        adapt(network(2), sx, sy, steps=1, lr=0.1, backend="higher")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "jax"}, "unknown backend 'jax': expected one of loop, grouped, vmap"),
        ({"adapted": "tail"}, "adapted is 'tail'"),
        ({"adapted": lambda name: False}, "leaves no parameter to adapt"),
        ({"lr": {"head.weight": 0.1}}, "lr has no rate for the adapted parameters"),
        ({"lr": []}, "empty sequence"),
        ({"lr": None}, "lr is None"),
        ({"inner_optimizer": torch.optim.SGD}, "inner_optimizer needs backend='higher'"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    sx, sy, *_ = task()
    with pytest.raises(ValueError, match=message):
        adapt(network(0), sx, sy, **({"steps": 1, "lr": 0.1} | options))


def test_wrong_shapes() -> None:
    sx, sy, *_ = task()
    with pytest.raises(ValueError, match=r"support_x \(6, 8\) does not fit support_y \(5,\)"):
        adapt(network(0), sx, sy[:5], steps=1, lr=0.1)
    with pytest.raises(ValueError, match=r"must be \(S,\) or \(T, S\)"):
        adapt(network(0), sx[None, None], sy[None, None], steps=1, lr=0.1)
