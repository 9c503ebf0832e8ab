"""CORAL against numpy and a closed form; gradient reversal against autodiff; stratified samples."""

from __future__ import annotations

import numpy as np
import pseudolabel_da as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def numpy_coral(source: np.ndarray, target: np.ndarray) -> float:
    d = source.shape[1]
    gap = np.cov(source, rowvar=False).reshape(d, d) - np.cov(target, rowvar=False).reshape(d, d)
    return float((gap**2).sum() / (4 * d * d))


@pytest.mark.parametrize(("n_s", "n_t", "d"), [(2, 2, 1), (5, 5, 3), (40, 7, 10), (3, 64, 31)])
def test_coral_equals_numpy(n_s: int, n_t: int, d: int) -> None:
    source, target = torch.randn(n_s, d).double() + 5, torch.randn(n_t, d).double() * 3
    loss = pl.coral_loss(source, target)
    assert loss.item() == pytest.approx(numpy_coral(source.numpy(), target.numpy()), rel=1e-12)
    assert pl.CoralLoss(2.5)(source, target).item() == pytest.approx(2.5 * loss.item(), rel=1e-12)
    means = float(((source.mean(0) - target.mean(0)) ** 2).sum() / d)
    assert pl.coral_loss(source, target, mean_term=True).item() == pytest.approx(loss.item() + means, rel=1e-12)


def test_coral_closed_form() -> None:
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    # covariances 4/3 I and 16/3 I: (4 I)^2 summed is 32, over 4 * 2^2
    assert pl.coral_loss(square, 2 * square).item() == pytest.approx(2.0, rel=1e-14)
    assert pl.coral_loss(square, square + 7).item() == pytest.approx(0.0, abs=1e-14)


def test_published_form_equals_a_loop() -> None:
    source, target = torch.randn(6, 4).double(), torch.randn(9, 4).double() + 1
    total = 0.0
    for i in range(4):
        for j in range(4):
            a = sum(float(row[i] * row[j]) for row in source) / 6
            b = sum(float(row[i] * row[j]) for row in target) / 9
            total += (a - b) ** 2
    published = pl.coral_loss(source, target, form="published")
    assert published.item() == pytest.approx(total / 16 / (4 * 16), rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"mean_term": True}, {"form": "published"}])
def test_coral_gradcheck(options: dict) -> None:
    source, target = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 6))
    assert torch.autograd.gradcheck(lambda a, b: pl.coral_loss(a, b, **options), (source, target))


def test_coral_in_half_precision_is_computed_in_float32() -> None:
    source, target = torch.randn(8, 5).bfloat16(), torch.randn(9, 5).bfloat16()
    wanted = pl.coral_loss(source.double(), target.double()).item()
    assert pl.coral_loss(source, target).dtype == torch.float32
    assert pl.coral_loss(source, target).item() == pytest.approx(wanted, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pl.coral_loss(source.float(), target.float()).item() == pytest.approx(wanted, rel=1e-5)


def test_coral_refuses() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        pl.coral_loss(torch.rand(1, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match="expected"):
        pl.coral_loss(torch.rand(4, 3), torch.rand(5, 4))
    with pytest.raises(ValueError, match="form"):
        pl.CoralLoss(form="mine")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_coral_is_a_symmetric_distance_blind_to_shifts(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b, shift = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (5, 8, 1))
    loss = pl.coral_loss(a, b).item()
    assert loss >= 0
    assert pl.coral_loss(b + shift, a).item() == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_reversal_multiplies_the_gradient(strength: float) -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(pl.reverse_gradient(x, strength), x)
    (reversed_gradient,) = torch.autograd.grad(pl.reverse_gradient(x, strength).pow(3).sum(), x)
    (gradient,) = torch.autograd.grad(x.pow(3).sum(), x)
    torch.testing.assert_close(reversed_gradient, -strength * gradient)


def test_reversal_at_strength_minus_one_passes_gradcheck() -> None:
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: pl.reverse_gradient(v, -1.0).sin(), (x,))
    batched = torch.func.vmap(torch.func.grad(lambda v: pl.reverse_gradient(v, 2.0).square().sum()))(x.detach())
    torch.testing.assert_close(batched, -4 * x.detach())


def test_domain_loss_is_the_mean_of_two_cross_entropies() -> None:
    head = pl.DomainHead(5, 16).double()
    source, target = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (4, 12))
    loss = pl.domain_loss(head, source, target, 0.7)
    bce = nn.functional.binary_cross_entropy_with_logits
    plain = (bce(head(source), torch.ones(4).double()) + bce(head(target), torch.zeros(12).double())) / 2
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    inputs = (source, target, *head.parameters())
    ours, theirs = torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(a, -0.7 * b if number < 2 else b)  # features are reversed, the head is not
    with pytest.raises(ValueError, match="not empty"):
        pl.domain_loss(head, source[:0], target)


@pytest.mark.parametrize("amount", [0.1, 0.5, 1.0, 7, 60, {"per_class": 3}])
def test_stratified_sample(amount: object) -> None:
    labels = torch.tensor([0] * 40 + [1] * 15 + [2] * 4 + [4])[torch.randperm(60)]
    sample = pl.stratified_sample(labels, amount, classes=6, seed=3)
    assert sorted([*sample.labeled.tolist(), *sample.rest.tolist()]) == list(range(60))
    assert torch.equal(torch.bincount(labels[sample.labeled], minlength=6), sample.counts)
    sizes = [40, 15, 4, 0, 1, 0]
    if isinstance(amount, dict):
        assert sample.counts.tolist() == [min(3, n) for n in sizes]
    elif isinstance(amount, float):
        assert sample.counts.tolist() == [max(round(n * amount), 1) if n else 0 for n in sizes]
    else:
        # largest remainders of 40, 15, 4, 0, 1, 0 sixtieths of 7 are 5, 2, 0, 0, 0: classes 2 and 4 are raised to one
        assert sample.counts.tolist() == ([5, 2, 1, 0, 1, 0] if amount == 7 else sizes)
        assert sample.raised.tolist() == [False, False, amount == 7, False, amount == 7, False]
    again = pl.stratified_sample(labels, amount, classes=6, seed=3)
    assert torch.equal(again.labeled, sample.labeled)


@pytest.mark.parametrize("amount", [0.0, 1.5, 0, 61, {"per_class": 0}, {"each": 2}])
def test_stratified_sample_refuses(amount: object) -> None:
    with pytest.raises(ValueError, match="got"):
        pl.stratified_sample(torch.zeros(60, dtype=torch.long), amount)
    with pytest.raises(ValueError, match="labels must be"):
        pl.stratified_sample(torch.zeros(0, dtype=torch.long), 0.5)
