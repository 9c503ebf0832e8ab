"""Pairs and structure found from noisy labels: exact matrices, imperfect posteriors, whole runs, real files."""

from __future__ import annotations

import gzip
import pathlib

import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.estimation import NoiseReport, estimate, find_pairs, select_structure
from fdiv_noisy.estimation.structure import information_warnings, wrong_share
from fdiv_noisy.noise.presets import LEVELS
from fdiv_noisy.transition import Sparse, Transition, Uniform, as_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pairs(k: int, count: int, a: float, b: float, seed: int = 0) -> Sparse:
    first, second = torch.randperm(k, generator=generator(seed))[: 2 * count].view(2, -1).tolist()
    return noise.sparse(dict.fromkeys(zip(first, second, strict=True), (a, b)), k)


def class_dependent(k: int, seed: int = 0) -> Tensor:
    """A general matrix: each class has its own rate, and its own taste where to flip."""
    off = torch.rand(k, k, generator=generator(seed)) ** 3
    off.fill_diagonal_(0)
    rate = 0.2 + 0.3 * torch.rand(k, 1, generator=generator(seed + 1))
    return (1 - rate) * torch.eye(k) + rate * off / off.sum(1, keepdim=True)


def sorted_pairs(model: Transition) -> list[list[int]]:
    return sorted(sorted(pair) for pair in model.pairs.tolist()) if isinstance(model, Sparse) else []


EXACT = [
    (random_pairs(2, 1, 0.3, 0.1), 1.0),
    (random_pairs(7, 3, 0.7, 0.2), 1.0),
    (random_pairs(100, 50, 0.6, 0.2), 1.0),
    (random_pairs(100, 9, 0.1, 0.0), 1.0),
    (noise.cifar10_asymmetric(0.4), 1.0),
    (noise.random(0.5, 10), 0.0),
    (noise.preset("uniform-high", "mnist"), 0.0),
    (noise.pair_flip(0.3, 10), 0.0),
    (noise.pair_flip(0.3, 3), 0.0),
    (class_dependent(10), 0.0),
    (torch.eye(5), 0.0),
]


@pytest.mark.parametrize(("model", "share"), EXACT)
def test_pairs_of_exact_matrices(model: Transition, share: float) -> None:
    found = find_pairs(as_matrix(model))
    assert found.pairs.tolist() == sorted_pairs(model)
    assert found.share == pytest.approx(share, abs=1e-5)


def heaviest_matchings(weight: Tensor) -> list[set[tuple[int, int]]]:
    """Every matching of the largest total weight, by trying all."""
    best: tuple[float, list[set[tuple[int, int]]]] = (-1.0, [])

    def extend(left: list[int], chosen: set[tuple[int, int]], total: float) -> None:
        nonlocal best
        if not left:
            if total > best[0] + 1e-9:
                best = (total, [])
            if total > best[0] - 1e-9:
                best[1].append(chosen)
            return
        i, *rest = left
        extend(rest, chosen, total)
        for j in rest:
            extend([c for c in rest if c != j], chosen | {(i, j)}, total + float(weight[i, j]))

    extend(list(range(len(weight))), set(), 0.0)
    return best[1]


@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 7), power=st.sampled_from([1, 4, 12]), seed=st.integers(0, 100_000))
def test_pairs_are_part_of_a_heaviest_matching(k: int, power: int, seed: int) -> None:
    t = torch.rand(k, k, generator=generator(seed), dtype=torch.float64) ** power + 1e-6
    t /= t.sum(1, keepdim=True)
    found = {(i, j) for i, j in find_pairs(t).pairs.tolist()}
    assert any(found <= matching for matching in heaviest_matchings(t + t.T))


def test_pairs_are_those_of_a_linear_assignment() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    model = random_pairs(40, 20, 0.4, 0.1)
    t = 0.95 * model.matrix() + 0.05 * class_dependent(40)
    weight = t + t.T
    weight.fill_diagonal_(0)
    rows, columns = optimize.linear_sum_assignment(weight.numpy(), maximize=True)
    assert [columns[c] for c in columns] == rows.tolist()  # an involution: all cycles are pairs
    assert find_pairs(t).pairs.tolist() == [[i, int(j)] for i, j in enumerate(columns) if i < j]


def test_pairs_must_stand_out_from_sampling_error() -> None:
    t = random_pairs(6, 3, 0.05, 0.05).matrix()
    assert len(find_pairs(t, torch.full((6, 6), 0.02)).pairs) == 3
    assert len(find_pairs(t, torch.full((6, 6), 0.03)).pairs) == 0
    with pytest.raises(ValueError, match=r"shape \(6, 6\)"):
        find_pairs(t, torch.zeros(6))


def imperfect_posteriors(model: Transition, per_class: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """What a network makes of classes of which each tenth sample looks half like the next class, with its errors."""
    t = as_matrix(model)
    k = len(t)
    classes = torch.arange(k).repeat(per_class)
    clean = torch.nn.functional.one_hot(classes, k).float()
    unclear = torch.rand(len(classes), 1, generator=generator(seed)) < 0.1
    clean = torch.where(unclear, (clean + clean.roll(1, 1)) / 2, clean)
    logits = (clean @ t).clamp_min(1e-3).log() + 0.25 * torch.randn(len(classes), k, generator=generator(seed + 1))
    return logits.softmax(1), noise.corrupt(classes, model, generator=generator(seed + 2)), classes


STRUCTURES = [
    ("sparse", noise.preset("sparse-low", "mnist"), 1000),
    ("sparse", noise.preset("sparse-high", "mnist"), 2000),
    ("sparse", noise.preset("sparse-low", "cifar10"), 1000),
    ("sparse", noise.cifar10_asymmetric(0.2), 1000),
    ("sparse", random_pairs(21, 3, 0.6, 0.2), 500),
    ("sparse", random_pairs(2, 1, 0.4, 0.1), 1000),
    ("sparse", random_pairs(60, 30, 0.7, 0.1), 300),
    ("uniform", noise.preset("uniform-low", "mnist"), 1000),
    ("uniform", noise.preset("uniform-high", "cifar10"), 1000),
    ("uniform", noise.preset("random-high", "mnist"), 1000),
    ("uniform", noise.random(0.2, 3), 1000),
    ("general", noise.pair_flip(0.2, 10), 1000),
    ("general", noise.pair_flip(0.45, 10), 1000),
    ("general", noise.pair_flip(0.4, 21), 500),
    ("general", class_dependent(10), 1000),
    ("clean", torch.eye(10), 1000),
]


@pytest.mark.parametrize(("structure", "model", "per_class"), STRUCTURES)
def test_structure_of_imperfect_posteriors(structure: str, model: Transition, per_class: int) -> None:
    probs, labels, classes = imperfect_posteriors(model, per_class)
    report = select_structure(probs, labels)
    assert report.structure == structure
    assert report.pairs.tolist() == sorted_pairs(model)
    error = (report.matrix() - as_matrix(model)).abs().sum() / len(as_matrix(model))
    assert float(error) < 0.15
    assert report.rate == pytest.approx(float((labels != classes).double().mean()), abs=0.06)


def test_wrong_share_weighs_classes_by_their_clean_share() -> None:
    t = noise.sparse({(0, 1): (0.7, 0.2)}, 3).matrix()
    classes = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([1000, 3000, 2000]))
    labels = noise.corrupt(classes, t, method="exact", generator=generator())
    assert wrong_share(t, labels) == pytest.approx((0.7 * 1000 + 0.2 * 3000) / 6000, abs=1e-3)


def test_wrong_share_is_safe_where_labels_tell_nothing() -> None:
    t = noise.sparse({(0, 1): (0.5, 0.4999)}, 4).matrix()
    labels = torch.tensor([0, 1, 2, 3]).repeat_interleave(torch.tensor([480, 520, 500, 500]))
    assert wrong_share(t, labels) == pytest.approx(0.25, abs=1e-3)  # half of half of the samples


def blobs(n: int, k: int, noise_model: Transition) -> tuple[Tensor, Tensor, Tensor]:
    centres = 2.0 * torch.randn(k, 8, generator=generator(1))
    classes = torch.randint(k, (n,), generator=generator(2))
    inputs = centres[classes] + torch.randn(n, 8, generator=generator(3))
    return inputs, noise.corrupt(classes, noise_model, generator=generator(4)), classes


def test_estimate_of_sparse_noise_end_to_end() -> None:
    model = noise.sparse({(0, 4): (0.6, 0.2), (2, 1): (0.3, 0.4)}, 5)
    inputs, labels, classes = blobs(5000, 5, model)
    rough, fine = (estimate(inputs, labels, 5, refine=refine) for refine in (False, True))
    for report in (rough, fine):
        assert report.structure == "sparse"
        assert report.pairs.tolist() == [[0, 4], [1, 2]]
        assert report.rate == pytest.approx(float((labels != classes).double().mean()), abs=0.04)
    torch.testing.assert_close(fine.matrix(), model.matrix(), rtol=0, atol=0.06)
    assert bool((as_matrix(fine.transition).diag() >= 0).all())
    assert "rates by nearest neighbours" in fine.method
    assert "sparse noise: labels flip inside pairs of classes" in str(fine)
    assert f"0 -> 4: {float(fine.matrix()[0, 4]):.3f}" in str(fine)


def test_estimate_uses_given_probabilities() -> None:
    probs, labels, _ = imperfect_posteriors(noise.random(0.4, 6), 500)
    report = estimate(torch.zeros(3000, 1), labels, 6, probs=probs)
    assert isinstance(report.transition, Uniform)
    assert str(report).count("\n") == 9  # three lines, a heading and six rows
    with pytest.raises(ValueError, match=r"shape \(N, 5\)"):
        estimate(torch.zeros(3000, 1), labels, 5, probs=probs)


def test_warnings_name_what_is_wrong() -> None:
    (text,) = information_warnings(noise.sparse({(0, 1): (0.5, 0.49), (2, 3): (0.2, 0.2)}, 4))
    assert "pair 0-1" in text
    assert "by 0.010 only" in text
    assert information_warnings(noise.random(0.5, 4)) == []
    nothing = torch.full((2000, 4), 0.25)
    report = select_structure(nothing, torch.arange(2000) % 4)
    assert any("hardly predicts" in text for text in report.warnings)
    assert any("nearly singular" in text for text in report.warnings)
    assert "warning: " in str(report)
    probs, labels, _ = imperfect_posteriors(noise.random(0.3, 12), 50)
    assert any("in 12 classes (0, 1, 2" in text for text in select_structure(probs, labels).warnings)


def test_names_of_classes_stand_for_their_numbers() -> None:
    model = noise.sparse({(0, 1): (0.3, 0.2)}, 4)
    (text,) = information_warnings(noise.sparse({(0, 1): (0.5, 0.49)}, 4), ["red fox", "cat", "d", "e"])
    assert text.startswith("pair red fox-cat: ")
    probs, labels, _ = imperfect_posteriors(model, 500)
    report = estimate(torch.zeros(len(labels), 1), labels, 4, probs=probs, refine=False, names=list("wxyz"))
    assert report.pairs.tolist() == [[0, 1]]
    assert "  w -> x: " in str(report)
    assert "0 -> 1" not in str(report)
    few = select_structure(probs[:40], labels[:40], names=list("wxyz"))
    assert any("in 4 classes (w, x, y, z)" in text for text in few.warnings)
    clean = torch.arange(400) % 4
    flipped = torch.where((torch.arange(400) % 20 < 4) & (clean < 2), 1 - clean, clean)
    assert "on the pairs w-x: " in str(noise.describe(flipped, clean, names=list("wxyz")))


def test_one_class_is_refused_in_words() -> None:
    labels = torch.zeros(40).long()
    with pytest.raises(ValueError, match="there is one class"):
        estimate(torch.rand(40, 1, 8, 8), labels, 1)
    with pytest.raises(ValueError, match="there is one class"):
        select_structure(torch.ones(40, 1), labels)


def _first(path: pathlib.Path, offset: int, count: int) -> Tensor:
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read(offset + count)[offset:]), dtype=torch.uint8)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("dataset", "level"),
    [
        ("mnist", "sparse-high"),
        ("mnist", "uniform-high"),
        ("fashion-mnist", "sparse-low"),  # shirts look like T-shirts and coats, and flip into boots
        ("fashion-mnist", "random-low"),
    ],
)
def test_published_noise_of_ten_thousand_images(real_data: pathlib.Path, dataset: str, level: str) -> None:
    raw, folder, stem = {
        "mnist": ("mnist/MNIST/raw", "MNIST", "MNIST"),
        "fashion-mnist": ("fashion-mnist/FashionMNIST/raw", "Fashion_MNIST", "Fashion"),
    }[dataset]
    images = _first(real_data / raw / "train-images-idx3-ubyte.gz", 16, 10_000 * 784).view(-1, 28, 28)
    clean = _first(real_data / raw / "train-labels-idx1-ubyte.gz", 8, 10_000).long()
    file = real_data / f"noise-labels/fdiv/{folder}/{stem}_noise_r0_{1 + LEVELS.index(level)}.pt"
    labels = noise.load_labels(file)[:10_000]
    report: NoiseReport = estimate(images, labels, 10)
    truth = noise.describe(labels, clean).transition
    assert truth is not None
    assert report.structure == ("sparse" if level.startswith("sparse") else "uniform")
    assert report.pairs.tolist() == sorted_pairs(noise.preset(level, dataset))
    assert float((report.matrix() - truth).abs().sum() / 10) < 0.15
    assert report.rate == pytest.approx(float((labels != clean).double().mean()), abs=0.06)
