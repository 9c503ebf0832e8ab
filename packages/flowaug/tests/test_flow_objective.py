"""Losses, controllers and the augmented classifier: values by plain loops, who gets which gradient, the optimum."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from flowaug import (
    AffineSpace,
    AugmentedClassifier,
    CropSpace,
    EntropyController,
    FlowAugmenter,
    FlowSpec,
    LocationRelationAugmenter,
    PIDEntropyController,
    classifier_loss,
    flow_aug_loss,
    mean_log_probability,
)
from flowaug.flows import ConditionalFlow
from flowaug.networks import SimpleConv
from flowaug.objective import score_function_loss
from torch import Tensor, nn


def test_aggregates_equal_plain_loops() -> None:
    logits, y = torch.randn(5, 4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    loops = {"ce_mean": [], "prob_mean": [], "logit_mean": []}
    for b in range(5):
        p = [logits[b, s].exp() / logits[b, s].exp().sum() for s in range(4)]
        right = torch.stack([q[y[b]] for q in p])
        loops["ce_mean"].append(-right.log().mean())
        loops["prob_mean"].append(-right.mean().log())
        mean = logits[b].mean(0)
        loops["logit_mean"].append(-(mean.exp()[y[b]] / mean.exp().sum()).log())
    for name, values in loops.items():
        expected = torch.stack(values).mean()
        torch.testing.assert_close(classifier_loss(logits, y, name), expected)
        torch.testing.assert_close(classifier_loss(logits, F.one_hot(y, 3).double(), name), expected)
    assert all(p <= ce for p, ce in zip(loops["prob_mean"], loops["ce_mean"], strict=True))  # Jensen
    torch.testing.assert_close(mean_log_probability(logits).exp().sum(-1), torch.ones(5, dtype=torch.float64))


def make_model(**options) -> AugmentedClassifier:
    augmenter = FlowAugmenter(AffineSpace(), flow=FlowSpec(layers=2, width=8, components=3), in_channels=1)
    return AugmentedClassifier(SimpleConv(1, 3, 4), augmenter, **options).double()


def test_the_classifier_has_the_gradient_of_the_cross_entropy_alone() -> None:
    model, x, y = make_model(), torch.rand(6, 1, 12, 12, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    views, _, log_prob = model.augmenter(x, 3)
    parts = flow_aug_loss(model.logits(views), y, log_prob, alpha=0.7)
    theta, phi = list(model.classifier.parameters()), list(model.augmenter.parameters())
    whole = torch.autograd.grad(parts.total, theta, retain_graph=True)
    plain = torch.autograd.grad(
        F.cross_entropy(model.classifier(views.detach().flatten(0, 1)), y.repeat_interleave(3)), theta
    )
    for a, b in zip(whole, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert all(g is None for g in torch.autograd.grad(parts.entropy, theta, allow_unused=True, retain_graph=True))
    through_ce = torch.autograd.grad(parts.ce, phi, retain_graph=True)
    # a shift of phases keeps volumes, so that the entropy does not depend on it
    through_entropy = torch.autograd.grad(parts.entropy, phi, retain_graph=True, materialize_grads=True)
    for total, ce, h in zip(torch.autograd.grad(parts.total, phi), through_ce, through_entropy, strict=True):
        torch.testing.assert_close(total, ce - 0.7 * h)
    assert any(bool(g.abs().max() > 0) for g in through_ce)


@pytest.mark.parametrize(("base", "coupling"), [("mog", "affine"), ("mog", "rqs"), ("student_t", "rqs")])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_trained_density_matches_the_analytic_target(alpha: float, base: str, coupling: str) -> None:
    """On a frozen one-dimensional classifier the optimum is f^(1/alpha) / Z (equations 11 to 18)."""

    def log_f(w: Tensor) -> Tensor:
        return F.logsigmoid(4 * torch.cos(math.pi * (w - 0.3)) - 1)

    spec = FlowSpec(layers=2, width=16, components=6, base=base, coupling=coupling, scale=0.5, spread=1.0)
    flow = ConditionalFlow(1, 1, spec).double()
    optimizer, context = torch.optim.Adam(flow.parameters(), 0.03), torch.zeros(1, 1, dtype=torch.float64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        w, log_prob = flow.sample(context, 256)
        optimizer.zero_grad()
        (-log_f(w).mean() + alpha * log_prob.mean()).backward()
        optimizer.step()
        schedule.step()
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 2000 - 1
    with torch.no_grad():
        g = flow.log_prob(grid.view(1, -1, 1), context)[0].exp() / 2000
    target = (log_f(grid) / alpha).softmax(0)
    assert float((g - target).abs().sum() / 2) < 0.1


def test_predictions_are_means_over_views_whatever_the_chunk() -> None:
    model, x = make_model(n_test=7), torch.rand(4, 1, 12, 12, dtype=torch.float64)
    probabilities = []
    for chunk in (1, 9, 1000):
        model.chunk = chunk
        probabilities.append(model.predict(x, generator=torch.Generator().manual_seed(0)))
    w, _ = model.augmenter.sample(x, 7, torch.Generator().manual_seed(0))
    expected = torch.stack(
        [
            torch.stack(
                [
                    model.classifier(model.augmenter.warp(x[b : b + 1], w[b : b + 1, s : s + 1])[0]).softmax(-1)[0]
                    for s in range(7)
                ]
            ).mean(0)
            for b in range(4)
        ]
    )
    for p in probabilities:
        torch.testing.assert_close(p, expected, rtol=0, atol=1e-12)


def test_the_original_counts_as_one_view_where_asked() -> None:
    model, x = make_model(n_test=3), torch.rand(2, 1, 12, 12, dtype=torch.float64)
    without = model.predict(x, generator=torch.Generator().manual_seed(0))
    model.include_original = True
    with_it = model.predict(x, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(with_it, (3 * without + model.classifier(x).softmax(-1)) / 4)
    loss = model.loss(x, torch.tensor([0, 1]), generator=torch.Generator().manual_seed(0))
    model.include_original = False
    plain = model.loss(x, torch.tensor([0, 1]), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.total - plain.total, model.plain_loss(x, torch.tensor([0, 1])))


def test_forward_is_a_drop_in_for_logits() -> None:
    model, x = make_model(), torch.rand(2, 1, 12, 12, dtype=torch.float64)
    torch.manual_seed(1)
    log_p = model(x)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, dtype=torch.float64))
    groups = model.param_groups(0.1, 1e-3, weight_decay=1e-4)
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]


def test_aligned_prediction_reads_views_around_the_aligned_pose() -> None:
    model, x = make_model(n_test=4), torch.rand(2, 1, 12, 12, dtype=torch.float64)
    model.classifier = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).double()
    options = {"steps": 2, "n": 5}
    p = model.predict(x, align=options, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    aligned = model.augmenter.align(x, **options, generator=generator)
    w, _ = model.augmenter.sample(aligned.images, 4, generator)
    from flowaug.warp import compose, warp

    views = warp(x, compose(aligned.matrices[:, None], AffineSpace().matrix(w, (12, 12))))
    torch.testing.assert_close(p, model.logits(views).softmax(-1).mean(1))


def test_score_function_gradient_is_that_of_the_expectation() -> None:
    theta = torch.tensor([0.2, -0.5, 0.7], dtype=torch.float64, requires_grad=True)
    table = torch.randn(3, 4, dtype=torch.float64)  # logits of the view by crop
    y = torch.tensor([1])
    values = torch.stack([F.cross_entropy(row[None], y) for row in table])
    exact = torch.autograd.grad((theta.softmax(0) * values).sum(), theta)[0]
    chosen = torch.multinomial(theta.detach().softmax(0).expand(20000, -1), 4, replacement=True)
    log_prob = theta.log_softmax(0)[chosen]
    loss = score_function_loss(table[chosen], y.expand(20000), log_prob)
    torch.testing.assert_close(torch.autograd.grad(loss, theta)[0], exact, rtol=0, atol=0.01)
    torch.testing.assert_close(loss, F.cross_entropy(table[chosen].flatten(0, 1), y.expand(80000)))


def test_discrete_augmenters_train_through_the_score_function() -> None:
    augmenter = LocationRelationAugmenter(CropSpace(), 1, 4)
    model = AugmentedClassifier(SimpleConv(1, 3, 4), augmenter, n_train=3)
    model.loss(torch.rand(4, 1, 32, 32), torch.tensor([0, 1, 2, 0])).total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in augmenter.parameters())


def test_controller_moves_alpha_towards_the_band() -> None:
    controller = EntropyController(1.0, 2.0, alpha=0.1, memory=0.0, rate=0.5)
    assert float(controller.update(torch.tensor(1.5))) == pytest.approx(0.1)
    assert float(controller.update(torch.tensor(0.0))) == pytest.approx(0.1 * math.exp(0.5))
    assert float(controller.update(torch.tensor(4.0))) == pytest.approx(0.1 * math.exp(0.5 - 1.0))
    for _ in range(100):
        controller.update(torch.tensor(-9.0))
    assert float(controller.alpha) == pytest.approx(10.0)
    again = EntropyController(1.0, 2.0)
    again.load_state_dict(controller.state_dict())
    assert float(again.alpha) == pytest.approx(10.0)


@pytest.mark.parametrize("kind", [EntropyController, PIDEntropyController])
def test_an_entropy_that_is_no_number_changes_nothing(kind: type[EntropyController | PIDEntropyController]) -> None:
    controller, other = kind(1.0, 2.0), kind(1.0, 2.0)
    for entropy in (float("nan"), 0.5, float("inf"), 3.0, float("nan")):
        before = {name: value.clone() for name, value in controller.state_dict().items()}
        controller.update(torch.tensor(entropy))
        if torch.tensor(entropy).isfinite():
            other.update(torch.tensor(entropy))
        else:
            assert all(torch.equal(value, before[name]) for name, value in controller.state_dict().items())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in controller.state_dict().items())


def test_pid_controller_equals_a_plain_loop() -> None:
    controller = PIDEntropyController(0.0, 4.0, limits=(0.001, 0.5), integral=10.0)
    mean = previous = None
    integral, alpha = 10.0, 0.5
    for entropy in [4.0, 9.0, 20.0, 30.0, 8.0, -3.0]:
        mean = entropy if mean is None else 0.9 * mean + 0.1 * entropy
        error = 2.0 - mean
        integral += error
        output = 0.01 * (error + integral + (0.0 if previous is None else error - previous))
        previous, alpha = error, min(max(0.9 * alpha + 0.1 * output, 0.001), 0.5)
        assert float(controller.update(torch.tensor(entropy))) == pytest.approx(alpha, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)), "expected logits"),
        (lambda: classifier_loss(torch.zeros(2, 1, 3), torch.zeros(2, dtype=torch.long), "max"), "aggregate"),
        (
            lambda: classifier_loss(torch.zeros(2, 1, 3), torch.zeros(2, 4)),
            r"expected probabilities \(B, 3\), got \(2, 4\)",
        ),
        (lambda: flow_aug_loss(torch.zeros(2, 1, 3), torch.zeros(2).long(), torch.zeros(2), 0.1), "log_prob"),
        (lambda: EntropyController(2.0, 1.0), "low <= high"),
        (lambda: LocationRelationAugmenter(AffineSpace()), "give a CropSpace, got AffineSpace"),
        (lambda: EntropyController(0.0, 1.0, alpha=20.0), "largest"),
        (lambda: PIDEntropyController(2.0, 1.0), "low <= high"),
        (lambda: PIDEntropyController(0.0, 1.0, alpha=0.6), "largest"),
        (lambda: make_model().predict(torch.rand(2, 1, 8, 8), n=0), "n must be >= 1, got 0"),
        (lambda: make_model().augmenter.align(torch.rand(2, 1, 8, 8), n=0), "n >= 1"),
        (lambda: make_model(n_train=0), "n_train"),
    ],
)
def test_wrong_use_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
