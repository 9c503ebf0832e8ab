from __future__ import annotations

import copy
import importlib.util
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Episode, irm_penalty
from rml_meta.methods.maml import multi_step_weights
from rml_meta.methods.robust import pairs
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


# robust meta-learning


@pytest.mark.parametrize("backend", ["loop", "vmap", "recompute"])
def test_diagonal_is_maml_to_the_last_bit(backend: str) -> None:
    net, e = network(), episodes(2, 3)
    one = MAML(net, 0.1, 2, backend=backend).meta_loss(e)
    two = RML(net, 0.1, 2, backend=backend, pairing="diagonal").meta_loss(e)
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(gradients(one, net), gradients(two, net), strict=True))


def wanted_pairs(
    pairing: str, include_self: bool, within: bool, groups: int = 2, envs: int = 3
) -> set[tuple[int, int]]:
    found = set()
    for g in range(groups):
        for a in range(envs):
            for h in range(groups):
                for b in range(envs):
                    i, j = g * envs + a, h * envs + b
                    ok = {
                        "cross_env": g == h and a != b,
                        "within_env": a == b and g != h,
                        "all_pairs": i != j and (g == h or not within),
                    }[pairing]
                    if ok or (include_self and i == j):
                        found.add((i, j))
    return found


@pytest.mark.parametrize("backend", ["loop", "vmap", "recompute"])
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize(
    ("pairing", "alignment"), [("cross_env", "same_classes"), ("within_env", "literal"), ("all_pairs", "same_classes")]
)
def test_pairs_and_their_loss(pairing: str, alignment: str, include_self: bool, backend: str) -> None:
    net, e = network(), episodes(2, 3)
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    wanted = wanted_pairs(pairing, include_self, alignment == "same_classes")
    options = {"pairing": pairing, "include_self": include_self, "class_alignment": alignment, "backend": backend}
    total = RML(net, 0.1, 2, reduction="sum", **options).meta_loss(e)
    expected = sum(cross(net, flat, i, j) for i, j in wanted)
    assert_same(total, expected, net)  # type: ignore[arg-type]
    torch.testing.assert_close(RML(net, 0.1, 2, **options).meta_loss(e) * len(wanted), total)


def test_all_pairs_by_the_letter_meet_across_groups() -> None:
    found = {(i, j) for i, js in enumerate(pairs(6, 3, "all_pairs", False, False)) for j in js}
    assert found == {(i, j) for i in range(6) for j in range(6) if i != j}


def test_literal_is_the_equations() -> None:
    net, e = network(), episodes(2, 2)
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    expected = 0
    for env in range(2):  # equation 7 over environments, 6 over tasks i and j of one, 4 with one step
        for i in (env, 2 + env):
            for j in (env, 2 + env):
                expected = expected + cross(net, flat, i, j, steps=1)
    assert_same(RML.literal(net, 0.1).meta_loss(e), expected, net)  # type: ignore[arg-type]


@pytest.mark.parametrize("pairing", ["cross_env", "within_env"])
def test_reheaded_fits_the_head_on_the_other_task(pairing: str) -> None:
    net, e = network(), episodes(2, 2)
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    expected, count = 0, 0
    for i, j in wanted_pairs(pairing, False, False, envs=2):
        # copies of the head keep its own fit apart from the inner loop of the body
        theta = dict(net.named_parameters())
        body = inner(theta, flat.support_x[i], flat.support_y[i])
        start = body | {n: theta[n] * 1 for n in ("head.weight", "head.bias")}
        fitted = inner(start, flat.support_x[j], flat.support_y[j], moves=lambda n: n.startswith("head"))
        expected = expected + F.cross_entropy(forward(fitted, flat.query_x[j]), flat.query_y[j])
        count += 1
    loss = RML(net, 0.1, 2, pairing=pairing, class_alignment="reheaded").meta_loss(e)
    assert_same(loss, expected / count, net)  # type: ignore[operator]


def risks_and_penalties(net: Net, e: Episode, environments: int = 2) -> tuple[list[Tensor], list[Tensor]]:
    """Mean risk of each environment's queries, and its penalty by autograd, of cross pairs in two groups."""
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    risks, penalties = [], []
    for env in range(environments):
        w = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses, scaled = [], []
        for group, other in itertools.product(range(2), range(environments)):
            if other == env:
                continue
            i, j = environments * group + other, environments * group + env
            adapted = inner(dict(net.named_parameters()), flat.support_x[i], flat.support_y[i])
            logits = forward(adapted, flat.query_x[j])
            losses.append(F.cross_entropy(logits, flat.query_y[j]))
            scaled.append(F.cross_entropy(w * logits, flat.query_y[j]))
        risks.append(torch.stack(losses).mean())
        (g,) = torch.autograd.grad(torch.stack(scaled).mean(), w, create_graph=True)
        penalties.append(g.square())
    return risks, penalties


@pytest.mark.parametrize("environments", [2, 3])
@pytest.mark.parametrize("penalty", ["irmv1", "vrex", "std"])
def test_penalties_by_environment(penalty: str, environments: int) -> None:
    net = network()
    e = episodes(2, environments)
    risks, penalties = risks_and_penalties(net, e, environments)
    spread = torch.stack(risks)
    value = {
        "irmv1": torch.stack(penalties).mean(),
        "vrex": (spread - spread.mean()).square().mean(),
        "std": (spread - spread.mean()).square().mean().sqrt(),
    }[penalty]
    options = {"penalty": penalty, "penalty_weight": 0.7}
    assert_same(RML(net, 0.1, 2, **options).meta_loss(e), spread.mean() + 0.7 * value, net)


def test_penalty_waits_and_rescales() -> None:
    net, e = network(), episodes(2, 2)
    plain = RML(net, 0.1, 2).meta_loss(e).detach()
    rml = RML(net, 0.1, 2, penalty="vrex", penalty_weight=10.0, anneal_steps=2)
    values = [rml.training_loss(e).detach() for _ in range(4)]
    assert torch.equal(values[0], plain)
    assert torch.equal(values[1], plain)
    risks, _ = risks_and_penalties(net, e)
    full = plain + 10 * torch.stack(risks).var(correction=0).detach()
    torch.testing.assert_close(values[2], full / 10)
    assert torch.equal(values[2], values[3])
    assert int(rml.steps_done) == 4
    with torch.no_grad():
        rml.training_loss(e)
    rml.eval()
    rml.training_loss(e)
    assert int(rml.steps_done) == 4  # only steps of training count
    raw = RML(net, 0.1, 2, penalty="vrex", penalty_weight=10.0, rescale=False).meta_loss(e)
    torch.testing.assert_close(raw.detach(), full)


@pytest.mark.parametrize(
    ("options", "leading", "message"),
    [
        ({}, (3, 1), "finds no pairs among 3 groups of 1 environments: cross_env needs at least 2"),
        ({"pairing": "within_env"}, (2, 2), "within_env at least 2 groups and class_alignment"),
        ({"pairing": "within_env", "class_alignment": "literal"}, (1, 2), "within_env at least 2 groups"),
    ],
)
def test_no_pairs_is_an_error(options: dict, leading: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RML(network(), 0.1, 1, **options).meta_loss(episodes(*leading))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairing": "x"}, "unknown pairing 'x': expected one of cross_env"),
        ({"penalty": "coral"}, "unknown penalty 'coral'"),
        ({"class_alignment": "x"}, "unknown class_alignment"),
        ({"penalty_weight": -1.0}, "must not be negative"),
        ({"class_alignment": "reheaded", "backend": "vmap"}, "another backend than 'vmap'"),
    ],
)
def test_wrong_robust_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RML(network(), 0.1, 1, **options)


def test_irm_of_adapted_logits_is_the_public_function() -> None:
    net, e = network(), episodes(1, 2)
    rml = RML(net, 0.1, 2, penalty="irmv1", penalty_weight=1.0)
    plain = RML(net, 0.1, 2).meta_loss(e)
    flat = Episode(*(v.flatten(0, 1) for v in e[:4]))  # type: ignore[union-attr]
    values = []
    for i, j in ((0, 1), (1, 0)):
        adapted = inner(dict(net.named_parameters()), flat.support_x[i], flat.support_y[i])
        values.append(irm_penalty(forward(adapted, flat.query_x[j]), flat.query_y[j]))
    torch.testing.assert_close(rml.meta_loss(e), plain + torch.stack(values).mean())
