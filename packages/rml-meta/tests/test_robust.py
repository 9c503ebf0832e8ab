"""Robust meta-learning, against its equations written out."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Episode, irm_penalty
from rml_meta.methods.robust import pairs
from test_maml import Net, assert_same, cross, episodes, forward, gradients, inner, network
from torch import Tensor


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
