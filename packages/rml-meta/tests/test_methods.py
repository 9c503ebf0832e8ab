from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rml_meta import Baseline, BaselinePP, CosineLinear, Episode, MatchingNet, MetaLSTM, ProtoNet, RelationNet, Reptile
from rml_meta.episode import EpisodeLike
from rml_meta.methods.meta_lstm import MetaCell, preprocess
from rml_meta.methods.relation import RelationModule
from torch import Tensor, nn

WAYS, SHOTS, QUERIES, SIZE = 3, 2, 4, 5


def episodes(*leading: int) -> Episode:
    """Tasks whose images come in no order of classes."""
    g = torch.Generator().manual_seed(1)
    parts = []
    for per_class in (SHOTS, QUERIES):
        count = WAYS * per_class
        order = torch.rand(*leading, count, generator=g).argsort(-1)
        parts += [torch.randn(*leading, count, SIZE, generator=g, dtype=torch.float64), order % WAYS]
    return Episode(*parts)


def each_task(e: Episode) -> list[Episode]:
    flat = [v.flatten(0, 1) for v in e[:4]]  # type: ignore[union-attr]
    return [Episode(*(v[i] for v in flat)) for i in range(len(flat[0]))]


def predict(method: nn.Module, e: EpisodeLike) -> Tensor:
    return method.predict(method.fit_support(e.support_x, e.support_y), e.query_x)  # type: ignore[operator]


def prototype(x: Tensor, y: Tensor, way: int) -> Tensor:
    return torch.stack([x[s] for s in range(len(y)) if int(y[s]) == way]).mean(0)


@pytest.mark.parametrize("distance", ["sqeuclidean", "euclidean", "cosine"])
def test_prototypes_by_loops(distance: str) -> None:
    e = episodes(2, 3)
    backbone = nn.Linear(SIZE, 4).double()
    method = ProtoNet(backbone, distance=distance, scale=1.7)
    logits = predict(method, e)
    assert logits.shape == (2, 3, WAYS * QUERIES, WAYS)
    total = 0.0
    for number, t in enumerate(each_task(e)):
        support, query = backbone(t.support_x), backbone(t.query_x)
        for q in range(len(query)):
            expected = []
            for way in range(WAYS):
                p = prototype(support, t.support_y, way)
                difference = query[q] - p
                expected.append(
                    {
                        "sqeuclidean": -(difference @ difference),
                        "euclidean": -(difference @ difference).sqrt(),
                        "cosine": (query[q] @ p) / (query[q].norm() * p.norm()),
                    }[distance]
                    * 1.7
                )
            row = torch.stack(expected)
            torch.testing.assert_close(logits[number // 3, number % 3, q], row.detach(), rtol=1e-9, atol=1e-10)
            total += float(F.cross_entropy(row, t.query_y[q]).detach())
    loss = method.training_loss(e)
    assert float(loss.detach()) == pytest.approx(total / (6 * WAYS * QUERIES), rel=1e-9)
    assert torch.autograd.grad(loss, backbone.weight)[0].abs().max() > 0


def lstm_step(cell: nn.Module, x: Tensor, h: Tensor, c: Tensor, suffix: str = "") -> tuple[Tensor, Tensor]:
    """An LSTM step of vectors, gate by gate."""
    of = dict(cell.named_parameters())
    both = of[f"weight_ih{suffix}"] @ x + of[f"bias_ih{suffix}"] + of[f"weight_hh{suffix}"] @ h + of[f"bias_hh{suffix}"]
    i, f, g, o = both.chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@pytest.mark.parametrize("contextual", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_matching_by_loops(contextual: bool, cut: bool) -> None:
    e = episodes(2, 2)
    method = MatchingNet(nn.Identity(), SIZE, contextual=contextual, scale=3.0, cut_negative=cut).double()
    logits = predict(method, e).flatten(0, 1)
    for number, t in enumerate(each_task(e)):
        support = list(t.support_x)
        if contextual:
            zero = torch.zeros(SIZE, dtype=torch.float64)
            there, back = [], []
            for out, order, suffix in ((there, support, "_l0"), (back, support[::-1], "_l0_reverse")):
                h = c = zero
                for x in order:
                    h, c = lstm_step(method.set_encoder, x, h, c, suffix)  # type: ignore[arg-type]
                    out.append(h)
            support = [x + a + b for x, a, b in zip(support, there, back[::-1], strict=True)]
        for q, x in enumerate(t.query_x):
            h = x
            if contextual:
                c = torch.zeros(SIZE, dtype=torch.float64)
                for _ in range(len(support)):
                    attention = torch.stack([h @ s for s in support]).softmax(0)
                    read = sum(a * s for a, s in zip(attention, support, strict=True))
                    h, c = lstm_step(method.query_cell, torch.cat([x, read]), h, c)  # type: ignore[arg-type, list-item]
                    h = h + x
            cosines = torch.stack([(h @ s) / (h.norm() * s.norm()) for s in support])
            weights = (3.0 * (cosines.relu() if cut else cosines)).softmax(0)
            p = torch.stack(
                [sum(w for w, y in zip(weights, t.support_y, strict=True) if int(y) == k) for k in range(WAYS)]
            )  # type: ignore[arg-type]
            torch.testing.assert_close(logits[number, q], p.log().detach(), rtol=1e-9, atol=1e-11)


class Maps(nn.Module):
    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.layer, self.side = nn.Linear(SIZE, 2 * side * side), side

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(-1, 2, self.side, self.side)


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_relations_by_loops(loss: str) -> None:
    e = episodes(2, 2)
    method = RelationNet(Maps(), (2, 4, 4), loss=loss, hidden=6).double().eval()
    logits = predict(method, e).flatten(0, 1)
    total = []
    for number, t in enumerate(each_task(e)):
        support, query = method.backbone(t.support_x), method.backbone(t.query_x)
        for q in range(len(query)):
            scores = []
            for way in range(WAYS):
                pair = torch.cat([prototype(support, t.support_y, way), query[q]])
                scores.append(method.relation.score(method.relation.blocks(pair[None]))[0, 0])
            row = torch.stack(scores)
            torch.testing.assert_close(logits[number, q], row.detach(), rtol=1e-9, atol=1e-11)
            one_hot = torch.tensor([float(k == int(t.query_y[q])) for k in range(WAYS)], dtype=torch.float64)
            total.append(
                ((row.sigmoid() - one_hot) ** 2).mean() if loss == "mse" else -row.log_softmax(0)[int(t.query_y[q])]
            )
    torch.testing.assert_close(method.training_loss(e), torch.stack(total).mean())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 10, 19, 21])
def test_relation_module_takes_any_map(side: int) -> None:
    module = RelationModule(2, side, 4)
    assert module(torch.randn(7, 4, side, side)).shape == (7,)
    if side == 19:  # 3x3 maps of 64 channels before the linear layers, as published
        assert RelationModule(64, 19).score[0].in_features == 576  # type: ignore[union-attr]


@pytest.mark.parametrize("cls", [Baseline, BaselinePP])
def test_heads_are_fitted_as_torch_fits_one(cls: type[Baseline]) -> None:
    e = episodes(2, 2)
    method = cls(nn.Identity(), SIZE, 7, fit_epochs=3, seed=5)
    logits = predict(method, e).flatten(0, 1)
    for number, t in enumerate(each_task(e)):
        g = torch.Generator().manual_seed(5)
        first = (2 * torch.rand(WAYS, SIZE, generator=g) - 1) * SIZE**-0.5
        if cls is Baseline:
            head: nn.Module = nn.Linear(SIZE, WAYS)
            head.bias.data.zero_()
        else:  # torch's own weight norm, an independent way to the class-wise norm
            head = nn.utils.parametrizations.weight_norm(nn.Linear(SIZE, WAYS, bias=False), dim=0)
        head.weight = nn.Parameter(first.clone()) if cls is Baseline else first

        def unit(x: Tensor) -> Tensor:
            return x.float() if cls is Baseline else 2.0 * x.float() / (x.float().norm(dim=1, keepdim=True) + 1e-5)

        optimizer = torch.optim.SGD(head.parameters(), 0.01, 0.9, dampening=0.9, weight_decay=0.001)
        orders = [torch.randperm(WAYS * SHOTS, generator=g) for _ in range(3)]
        for order in orders:
            for rows in order.split(4):
                optimizer.zero_grad()
                F.cross_entropy(head(unit(t.support_x[rows])), t.support_y[rows]).backward()
                optimizer.step()
        torch.testing.assert_close(logits[number], head(unit(t.query_x)).detach(), rtol=1e-4, atol=1e-5)


def test_baseline_trains_on_plain_batches() -> None:
    method = Baseline(nn.Linear(SIZE, 4), 4, 7)
    x, y = torch.randn(9, SIZE), torch.randint(7, (9,))
    expected = F.cross_entropy(method.head(method.backbone(x)), y)
    from robustvision_core.data import Batch

    torch.testing.assert_close(method((x, y)), expected)
    torch.testing.assert_close(method(Batch(x, y, y)), expected)


@pytest.mark.parametrize("learn_norm", [True, False])
def test_cosine_head(learn_norm: bool) -> None:
    head = CosineLinear(SIZE, 4, scale=3.0, learn_norm=learn_norm).double()
    x = torch.randn(2, 6, SIZE, dtype=torch.float64)
    out = head(x)
    for a in range(2):
        for b in range(6):
            for c in range(4):
                w = head.weight[c]
                cosine = (x[a, b] @ w) / (x[a, b].norm() + 1e-5) / w.norm()
                factor = 3.0 * (head.norm[c] if head.norm is not None else 1.0)
                torch.testing.assert_close(out[a, b, c], cosine * factor)
    assert torch.isfinite(head(torch.zeros(1, SIZE, dtype=torch.float64))).all()


def test_scale_of_baseline_pp() -> None:
    assert BaselinePP(nn.Identity(), SIZE, 200).scale == 2
    assert BaselinePP(nn.Identity(), SIZE, 201).scale == 10


# gradient-based ones with rules of their own


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SIZE, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, WAYS)).double()


def test_reptile_direction() -> None:
    e = episodes(2, 2)
    model = small()
    make = functools.partial(torch.optim.Adam, lr=0.01, betas=(0.0, 0.999))
    method = Reptile(model, 3, inner_batch=None, inner_optimizer=make, carry=False)
    method(e).backward()
    ends, losses = [], []
    for t in each_task(e):
        copy = small()
        optimizer = make(copy.parameters())
        loss = torch.zeros(())
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(copy(torch.cat([t.support_x, t.query_x])), torch.cat([t.support_y, t.query_y]))
            loss.backward()
            optimizer.step()
        ends.append(list(copy.parameters()))
        losses.append(float(loss.detach()))
    for k, p in enumerate(model.parameters()):
        expected = torch.stack([p.detach() - end[k].detach() for end in ends]).mean(0)
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)
    assert float(method(e).detach()) == pytest.approx(np.mean(losses))
    target = [torch.stack([end[k].detach() for end in ends]).mean(0) for k in range(6)]
    torch.optim.SGD(model.parameters(), 1.0).step()  # with epsilon 1 the step goes all the way
    for p, t in zip(model.parameters(), target, strict=True):
        torch.testing.assert_close(p.detach(), t, rtol=1e-9, atol=1e-12)


def test_reptile_draws_minibatches_and_can_leave_the_query_out() -> None:
    e = episodes(1, 1)
    sizes = []
    model = small()
    model[0].register_forward_hook(lambda module, inputs, out: sizes.append(len(out)))  # type: ignore[index, operator]
    Reptile(model, 4, inner_batch=5)(e)
    Reptile(model, 1, inner_batch=None, train_on_query=False)(e)
    assert sizes == [5] * 4 + [WAYS * SHOTS]


def test_preprocessing_of_gradients() -> None:
    values = [0.0, 1e-6, -1e-6, math.exp(-10) * 1.001, -0.3, 5.0, -1e-4]
    out = preprocess(torch.tensor(values, dtype=torch.float64))
    for x, row in zip(values, out.tolist(), strict=True):
        large = abs(x) >= math.exp(-10)
        expected = (math.log(abs(x)) / 10, math.copysign(1, x)) if large else (-1, math.exp(10) * x)
        assert row == pytest.approx(expected)


def test_meta_cell_by_loops() -> None:
    torch.manual_seed(0)
    cell = MetaCell(hidden=3).double()
    for p in cell.parameters():
        p.data = 0.5 * torch.randn_like(p)
    theta, losses = torch.randn(2, 4, dtype=torch.float64), [torch.rand(2, dtype=torch.float64) for _ in range(3)]
    grads = [0.1 * torch.randn(2, 4, dtype=torch.float64) for _ in range(3)]
    state = cell.start(theta)
    for loss, grad in zip(losses, grads, strict=True):
        state = cell(state, loss, grad)
    for t in range(2):
        for p in range(4):
            h = c = torch.zeros(3, dtype=torch.float64)
            value, forget, inputs = theta[t, p], torch.zeros(1).double(), torch.zeros(1).double()
            for loss, grad in zip(losses, grads, strict=True):
                seen = torch.cat([preprocess(loss[t]), preprocess(grad[t, p])])
                h, c = lstm_step(cell.lstm, seen, h, c)
                forget = torch.sigmoid(cell.forget.weight[0] @ torch.cat([h, value.view(1), forget]) + cell.forget.bias)
                inputs = torch.sigmoid(cell.input.weight[0] @ torch.cat([h, value.view(1), inputs]) + cell.input.bias)
                value = (forget * value - inputs * grad[t, p])[0]
            torch.testing.assert_close(state.theta[t, p], value, rtol=1e-9, atol=1e-12)


def test_meta_lstm_begins_as_gradient_descent() -> None:
    # with gates held at f = 1 and i = a it is gradient descent of rate a
    e = episodes(1, 2)
    method = MetaLSTM(small(), 3).double()
    for gate, logit in ((method.cell.forget, 40.0), (method.cell.input, math.log(0.1 / 0.9))):
        gate.weight.data.zero_()
        gate.bias.data.fill_(logit)
    method.transductive = True
    for number, t in enumerate(each_task(e)):
        copy = small()
        for _ in range(3):
            copy.zero_grad()
            F.cross_entropy(copy(t.support_x), t.support_y).backward()
            for p in copy.parameters():
                p.data -= 0.1 * p.grad  # type: ignore[operator]
        torch.testing.assert_close(predict(method, e)[0, number], copy(t.query_x).detach(), rtol=1e-8, atol=1e-10)


def test_meta_lstm_learns_rule_and_start_with_constant_gradients() -> None:
    e = episodes(1, 2)
    method = MetaLSTM(small(), 2).double()
    loss = method(e)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.cell.parameters())
    # the same loss with the gradients of the first run put in as numbers has the same derivative
    own = [p.grad.clone() for p in method.model.parameters()]  # type: ignore[union-attr]
    fixed = []
    original = method._gradient
    method._gradient = lambda *a: fixed.append(original(*a)) or fixed[-1]  # type: ignore[method-assign, func-returns-value]
    method(e)
    replay = iter(fixed)
    method._gradient = lambda *a: next(replay)  # type: ignore[method-assign]
    grads = torch.autograd.grad(method(e), list(method.model.parameters()))
    for a, b in zip(own, grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProtoNet(nn.Identity(), distance="l1"), "unknown distance 'l1'"),  # type: ignore[arg-type]
        (lambda: RelationNet(Maps(), (2, 4, 4), loss="bce"), "unknown loss 'bce'"),  # type: ignore[arg-type]
        (lambda: RelationNet(Maps(), (2, 4, 5)), "square maps, got 4x5"),
        (lambda: Baseline(nn.Identity(), 5, 0), "must be positive"),
        (lambda: Reptile(small(), 0), "must be positive, got 0"),
        (lambda: MetaLSTM(small(), 0), "inner_steps must be positive"),
        (lambda: MetaLSTM(small(), hidden=0), "and hidden too, got 12 and 0"),
        (lambda: ProtoNet(small(), scale=-1.0), "scale must be positive, got -1.0"),
        (lambda: MatchingNet(small(), 3, scale=0.0), "scale must be positive"),
        (lambda: MatchingNet(small(), 3, steps=-1), "steps 0 or more"),
    ],
)
def test_wrong_options(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_rule_starts_as_slow_gradient_descent() -> None:
    torch.manual_seed(0)
    cell = MetaCell()
    theta, grad = torch.randn(2, 30), torch.randn(2, 30)
    with torch.no_grad():
        state = cell(cell.start(theta), torch.rand(2), grad)
    assert 0.98 < float(state.forget.min()) < float(state.forget.max()) < 1
    assert 0 < float(state.inputs.min()) < float(state.inputs.max()) < 0.02
    torch.testing.assert_close(state.theta, state.forget * theta - state.inputs * grad)


def test_matching_by_default_is_the_published_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(count, 8, generator=generator) for count in (5, 4))
    labels = torch.tensor([0, 0, 1, 2, 2])
    method = MatchingNet(nn.Identity(), 8, contextual=False)
    cosine = F.cosine_similarity(query[:, None], support[None], dim=-1)
    assert (cosine < 0).any()
    attention = (100 * cosine.relu()).softmax(1)
    shares = torch.stack([attention[:, labels == c].sum(1) for c in range(3)], 1)
    found = method.predict(method.fit_support(support, labels), query)
    torch.testing.assert_close(found.exp(), shares, rtol=1e-3, atol=1e-5)
