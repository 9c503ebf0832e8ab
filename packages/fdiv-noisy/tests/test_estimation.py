"""Estimators of the transition matrix against closed forms, plain loops and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.estimation import anchor_points, anchor_sets, confident_joint, dual_t
from fdiv_noisy.estimation.sets import AnchorSets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

DIAGONAL = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.15, 0.6]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_probabilities(n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    probs = torch.rand(n, k, generator=generator(seed)) ** 3 + 1e-3
    return probs / probs.sum(1, keepdim=True), torch.randint(k, (n,), generator=generator(seed + 1))


def posteriors(t: Tensor, n: int, error: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy posteriors as an imperfect network gives them, noisy labels and true classes."""
    classes = torch.randint(len(t), (n,), generator=generator(seed))
    logits = t[classes].clamp_min(1e-3).log() + error * torch.randn(n, len(t), generator=generator(seed + 1))
    return logits.softmax(1), noise.corrupt(classes, t, generator=generator(seed + 2)), classes


@pytest.mark.parametrize("fraction", [0.1, 0.4, 1.0])
def test_anchor_sets_count_the_labels_of_each_class(fraction: float) -> None:
    probs, labels, classes = posteriors(DIAGONAL, 9000, error=0.0)
    sets = anchor_sets(probs, labels, fraction=fraction)
    smallest = fraction * 0.9 * torch.bincount(classes).min()
    assert bool((sets.sizes > min(float(smallest), 0.9 * fraction * float(torch.bincount(labels).min()))).all())
    distance = (sets.transition - DIAGONAL).abs() / sets.standard_error()
    if fraction < 1:  # a full set of the size of the noisy class need not fit into the true one
        assert float(distance.max()) < 4.5
    torch.testing.assert_close(sets.transition.sum(1), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_of_the_probabilities_does_not_matter(dtype: torch.dtype) -> None:
    probs, labels, _ = posteriors(DIAGONAL, 4000, error=0.2)
    found = anchor_sets(probs.to(dtype), labels).transition
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, anchor_sets(probs, labels).transition, rtol=0, atol=0.03)


def test_anchor_sets_tell_apart_classes_that_share_their_labels() -> None:
    t = noise.pair_flip(0.45, 6)
    probs, labels, _ = posteriors(t, 12_000, error=0.3)
    first, refined = (anchor_sets(probs, labels, steps=steps).transition for steps in (0, 5))
    assert float((first - t).abs().sum() / 6) > 0.2
    assert float((refined - t).abs().sum() / 6) < 0.06


def test_anchor_sets_keep_sparse_noise_above_one_half() -> None:
    model = noise.sparse({(0, 1): (0.7, 0.2), (3, 2): (0.7, 0.2)}, 4)
    probs, labels, _ = posteriors(model.matrix(), 20_000, error=0.05)
    torch.testing.assert_close(anchor_sets(probs, labels).transition, model.matrix(), rtol=0, atol=0.05)


def test_standard_error_is_the_spread_of_repeated_counts() -> None:
    size = 200
    sample = noise.corrupt(torch.arange(3).repeat(size, 2000), DIAGONAL, generator=generator())  # 2000 repetitions
    counts = torch.nn.functional.one_hot(sample.view(size, 2000, 3), 3).float().mean(0)
    error = AnchorSets(DIAGONAL, torch.full((3,), size)).standard_error()
    torch.testing.assert_close(error, counts.std(0), rtol=0.08, atol=0)


def test_purity_is_the_determinant_less_its_sampling_error() -> None:
    size, runs = 400, 3000
    sample = noise.corrupt(torch.arange(3).repeat(size, runs), DIAGONAL, generator=generator()).view(size, runs, 3)
    counts = torch.nn.functional.one_hot(sample, 3).double().mean(0)
    sets = AnchorSets(DIAGONAL, torch.full((3,), size))
    value = torch.linalg.slogdet(DIAGONAL.double()).logabsdet
    assert sets.purity(caution=0.0) == pytest.approx(float(value))
    spread = torch.linalg.slogdet(counts).logabsdet.std()
    assert sets.purity(caution=0.0) - sets.purity(caution=1.0) == pytest.approx(float(spread), rel=0.08)
    assert AnchorSets(torch.full((3, 3), 1 / 3), torch.full((3,), size)).purity() == -math.inf


def test_the_fraction_follows_class_overlap() -> None:
    """With clear classes large sets win by their small error, with half-unclear ones small sets by their purity."""
    n = 6000
    classes = torch.randint(3, (n,), generator=generator())
    clear = torch.nn.functional.one_hot(classes, 3).float()
    sizes, errors = [], []
    for spread in (0.0, 0.8):  # how far a sample may lie towards the other classes
        share = spread * torch.rand(n, 1, generator=generator(2))
        mixed = (1 - share) * clear + share / 3
        truth = torch.multinomial(mixed, 1, generator=generator(3))[:, 0]
        labels = noise.corrupt(truth, DIAGONAL, generator=generator(4))
        sets = anchor_sets(mixed @ DIAGONAL, labels)
        sizes.append(int(sets.sizes.sum()))
        errors.append(float((sets.transition - DIAGONAL).abs().max()))
    assert sizes[1] < sizes[0]
    assert max(errors) < 0.1


@settings(max_examples=50, deadline=None)
@given(k=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_mixing_classes_never_raises_the_determinant(k: int, seed: int) -> None:
    mix, t = (torch.rand(k, k, generator=generator(seed + i), dtype=torch.float64) for i in (0, 1))
    mix, t = mix / mix.sum(1, keepdim=True), t / t.sum(1, keepdim=True)
    assert float(torch.linalg.det(mix @ t).abs()) <= float(torch.linalg.det(t).abs()) + 1e-12


def test_a_class_without_labels_keeps_an_identity_row() -> None:
    probs, labels, _ = posteriors(DIAGONAL, 500, error=0.1)
    probs = torch.cat([probs * 0.99, torch.full((500, 1), 0.01)], dim=1)
    for t in (anchor_sets(probs, labels).transition, confident_joint(probs, labels).transition):
        assert t[3].tolist() == [0, 0, 0, 1]
        torch.testing.assert_close(t.sum(1), torch.ones(4))


def test_anchor_points_are_exact_on_exact_posteriors() -> None:
    probs = DIAGONAL[torch.randint(3, (600,), generator=generator())]
    torch.testing.assert_close(anchor_points(probs), DIAGONAL)
    torch.testing.assert_close(anchor_points(probs, outliers=0.0), DIAGONAL)


@pytest.mark.parametrize(("k", "outliers", "rank"), [(4, 0.0, 0), (4, 0.03, 15), (50, 0.03, 3)])
def test_anchor_points_pass_over_outliers(k: int, outliers: float, rank: int) -> None:
    probs, _ = random_probabilities(500, k, seed=3)
    t = anchor_points(probs, outliers=outliers)
    for i in range(k):
        row = sorted(range(500), key=lambda n: -float(probs[n, i]))[rank]
        torch.testing.assert_close(t[i], probs[row])


def loop_confident_joint(probs: Tensor, labels: Tensor) -> Tensor:
    """Northcutt et al. 2021, equations 1 to 3, sample by sample; rows are noisy classes."""
    n, k = probs.shape
    threshold = [float(probs[labels == i, i].double().mean()) for i in range(k)]
    counts = torch.zeros(k, k, dtype=torch.float64)
    for x in range(n):
        reached = [j for j in range(k) if float(probs[x, j]) >= threshold[j]]
        if reached:
            counts[labels[x], max(reached, key=lambda j: float(probs[x, j]))] += 1
    for i in range(k):
        counts[i] *= float((labels == i).sum()) / float(counts[i].sum())
    return counts / counts.sum()


@settings(max_examples=25, deadline=None)
@given(k=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_confident_joint_is_its_definition(k: int, seed: int) -> None:
    probs, labels = random_probabilities(120, k, seed)
    found = confident_joint(probs, labels)
    expected = loop_confident_joint(probs, labels)
    torch.testing.assert_close(found.joint.double(), expected.T, rtol=0, atol=1e-6)
    prior = expected.sum(0)
    for i in range(k):
        if prior[i] > 0:
            torch.testing.assert_close(found.transition[i].double(), expected[:, i] / prior[i], rtol=0, atol=1e-5)
    shares = torch.bincount(labels, minlength=k) / len(labels)
    torch.testing.assert_close(found.joint.sum(0), shares)


def test_confident_joint_keeps_labels_without_confident_samples() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    found = confident_joint(probs, torch.tensor([0, 0, 0]))
    torch.testing.assert_close(found.transition, torch.eye(2))


def test_dual_t_is_the_product_of_its_factors() -> None:
    probs, labels = random_probabilities(300, 4, seed=5)
    guess = probs.argmax(1)
    counted = torch.zeros(4, 4)
    for g, y in zip(guess.tolist(), labels.tolist(), strict=True):
        counted[g, y] += 1
    expected = torch.zeros(4, 4)
    first = anchor_points(probs)
    for i in range(4):
        for j in range(4):
            expected[i, j] = sum(first[i, k] * counted[k, j] / counted[k].sum() for k in range(4))
    torch.testing.assert_close(dual_t(probs, labels), expected)


def test_estimators_find_the_matrix_of_moderate_noise() -> None:
    probs, labels, classes = posteriors(DIAGONAL, 30_000, error=0.15)
    empirical = noise.describe(labels, classes).transition
    assert empirical is not None
    assert float((anchor_sets(probs, labels).transition - empirical).abs().max()) < 0.03
    assert float((confident_joint(probs, labels).transition - empirical).abs().max()) < 0.08


LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: anchor_points(torch.randn(4, 3)), "not logits"),
        (lambda: anchor_points(torch.rand(4)), r"shape \(N, K\)"),
        (lambda: anchor_points(torch.zeros(0, 3)), "N >= 1"),
        (lambda: anchor_points(torch.eye(2), outliers=1.0), r"\[0, 1\)"),
        (lambda: anchor_points(torch.full((2, 2), math.nan)), "rows that sum to 1"),
        (lambda: anchor_sets(torch.eye(2), LABELS, fraction=0.0), r"fraction must be in \(0, 1\]"),
        (lambda: anchor_sets(torch.eye(2), LABELS, steps=-1), "steps >= 0"),
        (lambda: confident_joint(torch.eye(2), torch.tensor([0])), r"shape \(2,\)"),
        (lambda: dual_t(torch.eye(2), torch.tensor([0, 2])), r"0\.\.1"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
