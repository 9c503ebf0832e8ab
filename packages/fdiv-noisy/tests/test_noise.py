"""Noise models by name, noisy labels made from clean ones, and their description."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.noise.presets import LEVELS
from fdiv_noisy.transition import Sparse, Uniform, as_matrix, check_matrix
from hypothesis import given, settings
from hypothesis import strategies as st


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_matrix(k: int, seed: int = 0) -> torch.Tensor:
    t = torch.rand(k, k, generator=generator(seed), dtype=torch.float64) ** 3
    return t / t.sum(1, keepdim=True)


def test_random_noise_draws_from_all_classes() -> None:
    t = as_matrix(noise.random(0.7, 10))
    torch.testing.assert_close(t, 0.3 * torch.eye(10) + 0.07)
    assert 1 - float(t[0, 0]) == pytest.approx(0.63)  # 0.7 * 9 / 10


def test_pair_flip_is_a_cycle() -> None:
    t = as_matrix(noise.pair_flip(0.45, 4))
    expected = torch.tensor([[0.55, 0.45, 0, 0], [0, 0.55, 0.45, 0], [0, 0, 0.55, 0.45], [0.45, 0, 0, 0.55]])
    torch.testing.assert_close(t, expected)


def test_cifar10_asymmetric_flips() -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    t = as_matrix(noise.cifar10_asymmetric(0.4))
    flips = {(names[i], names[j]) for i, j in (t.fill_diagonal_(0) > 0).nonzero().tolist()}
    assert flips == {
        ("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat"),
    }  # fmt: skip
    torch.testing.assert_close(t[t > 0], torch.full((5,), 0.4))


@pytest.mark.parametrize(
    ("dataset", "name", "rate"),  # shares of wrong labels at equal class sizes, from the rates of the noise models
    [
        ("mnist", "sparse-high", 0.45),
        ("fashion-mnist", "sparse-low", 0.25),
        ("fashion-mnist", "uniform-low", 0.47 * 0.9),
        ("mnist", "uniform-high", 0.822 * 0.9),
        ("mnist", "random-high", 0.63),
        ("cifar10", "sparse-high", 0.4),
        ("cifar10", "uniform-high", 0.59 * 0.9),
        ("cifar10", "uniform-low", 0.2 * 0.9),
        ("cifar10", "random-low", 0.45),
        ("cifar100", "random-high", 0.495),
    ],
)
def test_presets_have_their_published_rates(dataset: str, name: str, rate: float) -> None:
    t = as_matrix(noise.preset(name, dataset))
    check_matrix(t)
    assert 1 - float(t.diag().mean()) == pytest.approx(rate, abs=1e-6)


def test_presets_are_models_of_their_kind() -> None:
    for name in LEVELS:
        assert isinstance(noise.preset(name, "mnist"), Sparse if name.startswith("sparse") else Uniform)


@pytest.mark.parametrize("method", ["sampled", "exact"])
def test_corrupted_labels_follow_the_matrix(method: str) -> None:
    t = random_matrix(5)
    clean = torch.randint(5, (200, 250), generator=generator())
    noisy = noise.corrupt(clean, t, method=method, generator=generator())
    assert noisy.shape == clean.shape
    assert noisy.dtype == torch.int64
    joint = noise.confusion(clean, noisy, 5)
    # five standard deviations of a share of 10,000
    torch.testing.assert_close(joint / joint.sum(1, keepdim=True), t, rtol=0, atol=5 * 0.5 / 100)


@settings(max_examples=40, deadline=None)
@given(k=st.integers(2, 7), n=st.integers(0, 60), seed=st.integers(0, 1000))
def test_exact_counts_are_rounded_shares_and_keep_every_class(k: int, n: int, seed: int) -> None:
    t = random_matrix(k, seed)
    clean = torch.randint(k, (n,), generator=generator(seed))
    joint = noise.confusion(clean, noise.corrupt(clean, t, method="exact", generator=generator(seed)), k)
    sizes = torch.bincount(clean, minlength=k).double()
    torch.testing.assert_close(joint.sum(1), sizes)
    for i in range(k):  # largest remainders, by hand
        shares = [float(sizes[i] * t[i, j]) for j in range(k)]
        counts = [math.floor(share) for share in shares]
        left = int(sizes[i]) - sum(counts)
        for j in sorted(range(k), key=lambda j: counts[j] - shares[j])[:left]:
            counts[j] += 1
        assert joint[i].tolist() == counts


def test_exact_flips_different_samples_each_time() -> None:
    clean = torch.arange(4).repeat_interleave(100)
    one, two = (noise.corrupt(clean, noise.pair_flip(0.5, 4), method="exact", generator=generator(s)) for s in (0, 1))
    again = noise.corrupt(clean, noise.pair_flip(0.5, 4), method="exact", generator=generator(0))
    assert not torch.equal(one, two)
    assert torch.equal(one, again)


def test_sampling_never_picks_a_class_of_zero_chance() -> None:
    t = noise.pair_flip(0.3, 100).roll((50, 50), (0, 1))
    clean = torch.arange(100).repeat(1000)
    noisy = noise.corrupt(clean, t, generator=generator())
    assert set((noisy - clean).remainder(100).unique().tolist()) == {0, 1}


def test_instance_dependent_noise_has_its_rate_and_depends_on_the_features() -> None:
    features = torch.randn(20_000, 5, 2, generator=generator())
    clean = torch.randint(4, (20_000,), generator=generator())
    noisy = noise.instance_dependent(features, clean, 0.3, 4, generator=generator(1))
    assert float((noisy != clean).double().mean()) == pytest.approx(0.3, abs=0.02)
    # where a sample flips to depends on its features: opposite features flip to other classes
    flips = (noisy != clean) & (clean == 0)
    centre = [features.flatten(1)[flips & (noisy == j)].mean(0) for j in (1, 2, 3)]
    assert min(float((centre[a] - centre[b]).norm()) for a, b in ((0, 1), (0, 2), (1, 2))) > 0.5


def test_instance_dependent_rates_are_a_truncated_normal() -> None:
    stats = pytest.importorskip("scipy.stats")
    from fdiv_noisy.noise.injection import _truncated_normal

    draws = _truncated_normal(torch.zeros(20_000), 0.1, 0.1, generator())
    reference = stats.truncnorm(-1.0, 9.0, loc=0.1, scale=0.1)
    assert stats.kstest(draws.numpy(), reference.cdf).pvalue > 1e-3


def test_describe_finds_rate_matrix_and_structure() -> None:
    clean = torch.arange(6).repeat_interleave(1000)
    model = noise.sparse({(0, 3): (0.6, 0.2), (5, 1): (0.3, 0.1)}, 6)
    summary = noise.describe(noise.corrupt(clean, model, method="exact"), clean)
    assert summary.rate == pytest.approx((0.6 + 0.2 + 0.3 + 0.1) / 6)
    assert summary.transition is not None
    torch.testing.assert_close(summary.transition.float(), model.matrix())
    assert summary.pairs is not None
    assert summary.pairs.tolist() == [[0, 3], [1, 5]]
    assert summary.sparse_residual == pytest.approx(0.0, abs=1e-6)
    assert summary.uniform_residual is not None
    assert summary.uniform_residual > 1
    assert "0-3, 1-5" in str(summary)
    assert "20.00%" in str(summary)


def test_describe_without_clean_labels_counts() -> None:
    summary = noise.describe(torch.tensor([0, 0, 2]), num_classes=4)
    assert summary.counts.tolist() == [2, 0, 1, 0]
    assert str(summary) == "3 labels, 4 classes of 0 to 2 samples"


def test_describe_keeps_absent_classes_valid() -> None:
    summary = noise.describe(torch.tensor([0, 1]), torch.tensor([0, 0]), num_classes=3)
    assert summary.transition is not None
    check_matrix(summary.transition)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.random(1.0, 3), r"p must be in \[0, 1\)"),
        (lambda: noise.cifar10_asymmetric(0.5), r"\[0, 0.5\)"),
        (lambda: noise.preset("sparse-high", "svhn"), "expected one of mnist"),
        (lambda: noise.preset("dense", "mnist"), "expected one of sparse-low"),
        (lambda: noise.preset("sparse-low", "cifar100"), "random-low and random-high only"),
        (lambda: noise.corrupt(torch.tensor([3]), torch.eye(3)), r"0\.\.2"),
        (lambda: noise.corrupt(torch.tensor([0.0]), torch.eye(3)), "int64"),
        (lambda: noise.corrupt(torch.tensor([0]), torch.eye(3), method="exactly"), "sampled or exact"),
        (lambda: noise.instance_dependent(torch.rand(3, 2), torch.zeros(2).long(), 0.1, 2), r"shape \(N, \.\.\.\)"),
        (
            lambda: noise.instance_dependent(torch.rand(1, 2), torch.zeros(1).long(), 1.2, 2),
            r"rate must be in \[0, 1\]",
        ),
        (lambda: noise.describe(torch.zeros(0).long()), "at least one"),
        (lambda: noise.describe(torch.zeros(2).long(), torch.zeros(3).long()), "one shape"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
