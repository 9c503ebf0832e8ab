"""The pair-conditional loss against a plain loop, and its promise: pairs are enough."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import PairConditionalLoss, Sparse, class_prior
from fdiv_noisy.losses.pair_conditional import pair_conditional_loss, weight_for

PAIRS = torch.tensor([[0, 3], [4, 1]])
K = 6


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, K, dtype=torch.float64, generator=generator), torch.randint(K, (9,), generator=generator)


def test_equals_the_loop() -> None:
    logits, targets = batch()
    prior = class_prior(torch.tensor([0, 0, 0, 3, 4, 1, 1, 2, 5]), K).double()
    partner = {0: 3, 3: 0, 4: 1, 1: 4}
    expected = []
    for row, y in zip(logits.softmax(1).tolist(), targets.tolist(), strict=True):
        if y not in partner:
            expected.append(-math.log(row[y]))
            continue
        other = partner[y]
        c = row[y] / (row[y] + row[other])
        share = float(prior[y] / (prior[y] + prior[other]))
        g, g_other = 0.5 * math.tanh(c), 0.5 * math.tanh(1 - c)
        inside = -g + share * g + (1 - share) * g_other
        expected.append(-math.log(row[y] + row[other]) + 5 * inside)
    loss = PairConditionalLoss(PAIRS, prior, reduction="none")
    torch.testing.assert_close(loss(logits, targets), torch.tensor(expected, dtype=torch.float64))
    mean = PairConditionalLoss(PAIRS, prior)(logits, targets)
    torch.testing.assert_close(mean, torch.tensor(expected, dtype=torch.float64).mean())


def test_gradcheck_and_ignored_labels() -> None:
    logits, targets = batch()
    targets[2] = -100
    loss = PairConditionalLoss(PAIRS, torch.full((K,), 1 / K, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("balance", [0.5, 0.2, 0.9])
@pytest.mark.parametrize(("a", "b"), [(0.7, 0.2), (0.3, 0.1), (0.05, 0.85), (0.0, 0.4)])
def test_minimum_is_the_clean_label_for_any_rates_and_balance(a: float, b: float, balance: float) -> None:
    """One free choice per true class: the expected loss must be lowest where each is predicted as itself."""
    clean = torch.tensor([balance, 1 - balance], dtype=torch.float64)
    t = Sparse(torch.tensor([[0, 1]]), torch.tensor([[a, b]], dtype=torch.float64), 2).matrix()
    joint = clean[:, None] * t
    prior = joint.sum(0)
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(300):
        rows = torch.tensor([0, 0, 1, 1])
        labels = torch.tensor([0, 1, 0, 1])
        values = pair_conditional_loss(logits[rows], labels, torch.tensor([1, 0]), prior, reduction="none")
        (gradient,) = torch.autograd.grad((joint.flatten() * values).sum(), logits)
        logits = (logits - 20 * gradient).detach().requires_grad_()
    assert logits.argmax(1).tolist() == [0, 1]


def test_bad_pairs_and_soft_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="disjoint"):
        PairConditionalLoss(torch.tensor([[0, 1], [1, 2]]), torch.full((3,), 1 / 3))
    with pytest.raises(ValueError, match="class indices"):
        PairConditionalLoss(PAIRS, torch.full((K,), 1 / K))(torch.zeros(2, K), torch.full((2, K), 1 / K))


def test_the_weight_falls_with_the_samples_seen() -> None:
    assert weight_for(1) == weight_for(100_000) == 10
    assert weight_for(1_600_000) == weight_for(10**9) == 3
    assert weight_for(200_000) == pytest.approx(10 / 2**0.75)
