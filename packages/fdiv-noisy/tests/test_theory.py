"""The paper's theorems as identities on small random distributions, each computed without the package's loss."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import DIVERGENCES, FDivergenceLoss, Sparse, Uniform
from fdiv_noisy.losses.compat import SparseWithoutMembership
from fdiv_noisy.transition import Transition, as_matrix, coefficients
from torch import Tensor

NAMES = sorted(DIVERGENCES)
F64 = torch.float64


def problem(k: int, points: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """P(x) (X,), P(y | x) (X, K) and predictions (X, K)."""
    generator = torch.Generator().manual_seed(seed)
    px = torch.rand(points, dtype=F64, generator=generator)
    py = torch.rand(points, k, dtype=F64, generator=generator)
    h = torch.randn(points, k, dtype=F64, generator=generator)
    return px / px.sum(), py / py.sum(1, keepdim=True), h.softmax(1)


def vd(name: str, px: Tensor, py: Tensor, h: Tensor) -> Tensor:
    """The variational difference with fixed g, by its definition."""
    d = DIVERGENCES[name]
    joint = px[:, None] * py
    product = px[:, None] * (px @ py)
    return (joint * d.g(h)).sum() - (product * d.conjugate_g(h)).sum()


def corrected_vd(name: str, px: Tensor, py: Tensor, h: Tensor, transition: Transition) -> Tensor:
    """What the corrected loss estimates from noisy labels: a label k counts as row k of the coefficients."""
    c = coefficients(transition)
    return vd(name, px, py @ as_matrix(transition) @ c, h)


@pytest.mark.parametrize("k", [2, 5, 10])
@pytest.mark.parametrize("name", NAMES)
def test_theorem_5_uniform_noise(name: str, k: int) -> None:
    d = DIVERGENCES[name]
    for seed in range(10):
        px, py, h = problem(k, seed=seed)
        e = torch.rand(k, dtype=F64) / k * 0.9
        noisy = vd(name, px, py @ Uniform(e).matrix(), h)
        delta = (px[:, None] * (d.g(h) - d.conjugate_g(h))).sum(0)
        torch.testing.assert_close(noisy, (1 - e.sum()) * vd(name, px, py, h) + (e * delta).sum(), rtol=0, atol=1e-12)
        if name == "tv":
            assert (delta == 0).all()


def sparse_noise(k: int, seed: int, equal: bool = False) -> Sparse:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(k, generator=generator)[: 2 * (k // 2)].view(-1, 2)
    rates = torch.rand(len(pairs), 2, dtype=F64, generator=generator) * 0.5
    if equal:
        rates = rates / rates.sum(1, keepdim=True) * 0.6
    return Sparse(pairs, rates, k)


@pytest.mark.parametrize("k", [4, 5, 10])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_identity_needs_pair_membership(name: str, k: int) -> None:
    """noisy VD = sum over pairs of s_c VD_c, plus a bias that each pair has on its own samples only."""
    d = DIVERGENCES[name]
    for seed in range(10):
        px, py, h = problem(k, seed=seed)
        noise = sparse_noise(k, seed)
        noisy_py = py @ noise.matrix()
        noisy = vd(name, px, noisy_py, h)
        g, c = d.g(h), d.conjugate_g(h)
        share, bias = torch.ones(k, dtype=F64), torch.zeros((), dtype=F64)
        for (i, j), (a, b) in zip(noise.pairs.tolist(), noise.rates, strict=True):
            share[i] = share[j] = 1 - a - b
            member = px * (noisy_py[:, i] + noisy_py[:, j])
            bias += (member * (a * g[:, j] + b * g[:, i])).sum()
            bias -= member.sum() * (px * (a * c[:, j] + b * c[:, i])).sum()
        clean = (px[:, None] * py * share * g).sum() - (px[:, None] * ((px @ py) * share) * c).sum()
        torch.testing.assert_close(noisy, clean + bias, rtol=0, atol=1e-12)
        corrected = corrected_vd(name, px, py, h, noise)
        torch.testing.assert_close(corrected, clean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["kl", "js", "pearson"])
def test_published_sparse_correction_subtracts_too_much(name: str) -> None:
    px, py, h = problem(10, seed=4)
    noise = sparse_noise(10, 4, equal=True)
    s = 1 - noise.rates[0].sum()
    noisy = vd(name, px, py @ noise.matrix(), h)
    published = corrected_vd(name, px, py, h, SparseWithoutMembership(noise))
    right = corrected_vd(name, px, py, h, noise)
    torch.testing.assert_close(right, s * vd(name, px, py, h), rtol=0, atol=1e-12)
    assert (published - noisy).abs() > 3 * (right - noisy).abs()


@pytest.mark.parametrize("k", [2, 5, 10])
@pytest.mark.parametrize("name", NAMES)
def test_any_invertible_matrix_is_corrected_exactly(name: str, k: int) -> None:
    for seed in range(10):
        px, py, h = problem(k, seed=seed)
        t = torch.rand(k, k, dtype=F64, generator=torch.Generator().manual_seed(seed)) + 2 * torch.eye(k, dtype=F64)
        t = t / t.sum(1, keepdim=True)
        torch.testing.assert_close(corrected_vd(name, px, py, h, t), vd(name, px, py, h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_theorem_7_total_variation_keeps_the_best_classifier(k: int) -> None:
    """With the optimal g, over every hard classifier of a small space."""
    points = 4
    px, py, _ = problem(k, points, seed=2)
    e = torch.tensor([0.25, 0.3, 0.2][:k], dtype=F64)
    noisy_py = py @ Uniform(e).matrix()

    def total_variation(labels: Tensor, h: Tensor) -> Tensor:
        prediction = torch.nn.functional.one_hot(h, k).to(F64)
        joint = prediction.T @ (px[:, None] * labels)
        return DIVERGENCES["tv"].between(joint + 1e-300, joint.sum(1, keepdim=True) * joint.sum(0) + 1e-300).sum()

    classifiers = torch.cartesian_prod(*[torch.arange(k)] * points)
    clean = torch.stack([total_variation(py, h) for h in classifiers])
    noisy = torch.stack([total_variation(noisy_py, h) for h in classifiers])
    torch.testing.assert_close(noisy, (1 - e.sum()) * clean, rtol=0, atol=1e-12)


# an example worked out by hand, clean and noisy, under e = (.1, .2, .15)
WORKED = {
    "tv": (0.048863, 0.026875),
    "js": (0.006342, -0.013843),
    "pearson": (0.076630, 0.024584),
    "neyman": (0.047179, 0.012430),
    "kl": (-0.070029, -0.123330),
    "reverse_kl": (0.009784, -0.024219),
    "sq_hellinger": (-0.090304, -0.121853),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_example_through_the_loss(name: str) -> None:
    px = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    py = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]], dtype=F64)
    h = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], dtype=F64)
    noise = Uniform(torch.tensor([0.1, 0.2, 0.15], dtype=F64))
    # a data set whose frequencies are the distribution: every x as often as P(x) says, with soft labels
    repeat = torch.tensor([2, 3, 5]).repeat(40)
    rows = torch.arange(3).repeat(40).repeat_interleave(repeat)
    for labels, value in ((py, WORKED[name][0]), (py @ noise.matrix(), WORKED[name][1])):
        loss = FDivergenceLoss(name, product="exact", prior=px @ labels)
        assert float(loss.divergence(h[rows].log(), labels[rows])) == pytest.approx(value, abs=1e-6)
    noisy = py @ noise.matrix()
    loss = FDivergenceLoss(name, product="exact", prior=px @ noisy, transition=noise)
    expected = (1 - noise.rates.sum()) * vd(name, px, py, h)
    torch.testing.assert_close(loss.divergence(h[rows].log(), noisy[rows]), expected, rtol=0, atol=1e-12)


def joint_of(h: Tensor, px: Tensor, labels: Tensor) -> Tensor:
    """Joint distribution (K, K) of a hard classifier's predictions (X,) and labels P(y | x) (X, K)."""
    k = labels.shape[1]
    return torch.nn.functional.one_hot(h, k).to(F64).T @ (px[:, None] * labels)


def balanced_binary(seed: int, points: int = 5) -> tuple[Tensor, Tensor]:
    px, py, _ = problem(2, points, seed)
    scale = 0.5 / (px @ py)
    weight = px[:, None] * py * scale  # reweighting the classes balances them
    return weight.sum(1), weight / weight.sum(1, keepdim=True)


@pytest.mark.parametrize("seed", range(5))
def test_theorem_1_total_variation_is_accuracy_on_balanced_binary_labels(seed: int) -> None:
    px, py = balanced_binary(seed)
    torch.testing.assert_close(px @ py, torch.full((2,), 0.5, dtype=F64))
    for h in torch.cartesian_prod(*[torch.arange(2)] * 5):
        joint = joint_of(h, px, py)
        total_variation = 0.5 * (joint - joint.sum(1, keepdim=True) * joint.sum(0)).abs().sum()
        torch.testing.assert_close(total_variation, (joint.trace() - 0.5).abs(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_theorem_3_best_classifier_of_balanced_certain_labels(name: str) -> None:
    """Where the labels are certain and balanced, the Bayes classifier has the largest divergence."""
    px = torch.tensor([0.2, 0.3, 0.1, 0.25, 0.15], dtype=F64)
    best = torch.tensor([0, 0, 1, 1, 1])
    py = torch.nn.functional.one_hot(best, 2).to(F64)
    d = DIVERGENCES[name]

    def value(h: Tensor) -> float:
        joint = joint_of(h, px, py).clamp_min(1e-12)
        return float(d.between(joint.flatten(), (joint.sum(1, keepdim=True) * joint.sum(0)).flatten()))

    values = {tuple(h.tolist()): value(h) for h in torch.cartesian_prod(*[torch.arange(2)] * 5)}
    assert max(values.values()) == pytest.approx(values[tuple(best.tolist())], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tv"])
def test_lemma_1_bias_falls_with_the_square_of_the_information_left(name: str) -> None:
    px, py = balanced_binary(3)
    h = torch.tensor([0, 1, 0, 1, 1])
    d = DIVERGENCES[name]
    biases = []
    for left in (0.02, 0.01):
        e = torch.full((2,), (1 - left) / 2, dtype=F64)
        joint = joint_of(h, px, py @ Uniform(e).matrix())
        predicted = joint.sum(1)
        g = d.optimal_g(joint / (predicted[:, None] * joint.sum(0)))
        biases.append((e * (predicted[:, None] * (g - d.conjugate(g))).sum(0)).sum().abs())
    slope = float((biases[0] / biases[1]).log()) / math.log(2)
    assert slope == pytest.approx(2, abs=0.1)
