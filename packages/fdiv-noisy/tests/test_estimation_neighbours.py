"""Flip rates inside pairs: neighbour counts, the mixture of binomials, and rates with known answers."""

from __future__ import annotations

import pytest
import torch
from fdiv_noisy import noise
from fdiv_noisy.estimation import pair_rates
from fdiv_noisy.estimation.neighbours import mixture_of_two, neighbour_counts
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int, k: int, distance: float, dimensions: int = 6) -> tuple[Tensor, Tensor]:
    centres = torch.randn(k, dimensions, generator=generator(1)) * distance
    classes = torch.randint(k, (n,), generator=generator(2))
    return centres[classes] + torch.randn(n, dimensions, generator=generator(3)), classes


@pytest.mark.parametrize("chunk", [7, 1000])
def test_neighbour_counts_are_brute_force_counts(chunk: int) -> None:
    features, marks = torch.randn(60, 3, generator=generator()), (torch.rand(60, generator=generator(1)) < 0.4).float()
    counts = neighbour_counts(features, marks, [1, 5, 20], chunk=chunk)
    distance = torch.cdist(features.double(), features.double())
    for x in range(60):
        order = sorted((y for y in range(60) if y != x), key=lambda y: float(distance[x, y]))
        assert counts[x].tolist() == [float(marks[order[:k]].sum()) for k in (1, 5, 20)]


def test_mixture_finds_its_components() -> None:
    stats = pytest.importorskip("scipy.stats")
    trials = torch.tensor([40, 200])
    first = torch.rand(20_000, generator=generator()) < 0.35
    chance = torch.where(first, 0.3, 0.2)[:, None].expand(-1, 2)
    counts = torch.binomial(trials.float().expand(20_000, 2), chance, generator=generator(1))
    found = mixture_of_two(counts, trials)
    for column, n in enumerate(trials.tolist()):  # the posterior of the true parameters, from scipy
        successes = counts[:, column].numpy()
        high, low = 0.35 * stats.binom.pmf(successes, n, 0.3), 0.65 * stats.binom.pmf(successes, n, 0.2)
        expected = torch.from_numpy(high / (high + low))
        assert float((found[:, column] - expected).abs().mean()) < 0.05
    assert float(((found[:, 1] > 0.5) == first).double().mean()) > 0.94


def test_mixture_of_equal_counts_stays_finite() -> None:
    chance = mixture_of_two(torch.full((50, 1), 3.0), torch.tensor([10]))
    assert bool(chance.isfinite().all())


@pytest.mark.parametrize(("a", "b"), [(0.7, 0.2), (0.1, 0.4), (0.0, 0.0)])
def test_rates_of_separate_classes_are_found(a: float, b: float) -> None:
    features, classes = blobs(6000, 4, distance=3.0)
    model = noise.sparse({(0, 3): (a, b), (2, 1): (a, b)}, 4)
    labels = noise.corrupt(classes, model, method="exact", generator=generator(4))
    found = pair_rates(features, labels, model.pairs, 4)
    # own labels of 1500 samples a class: three standard errors of a share, and a few samples on the wrong side
    torch.testing.assert_close(found.model.rates, model.rates, rtol=0, atol=0.04)
    assert found.model.pairs.tolist() == [[0, 3], [2, 1]]


def test_the_first_class_is_the_one_that_carries_more_of_its_label() -> None:
    features, classes = blobs(4000, 2, distance=4.0)
    labels = noise.corrupt(classes, torch.tensor([[0.2, 0.8], [0.7, 0.3]]), generator=generator())  # a + b > 1
    (found,) = pair_rates(features, labels, torch.tensor([[0, 1]]), 2).model.rates.tolist()
    assert found == pytest.approx([0.3, 0.2], abs=0.05)  # class 0 is taken for class 1: swapped, as documented


def test_many_dimensions_are_reduced_without_touching_the_random_state() -> None:
    features, classes = blobs(1500, 2, distance=3.0)
    wide = torch.cat([features, 0.01 * torch.randn(1500, 1100, generator=generator(5))], dim=1).view(1500, 2, -1)
    labels = noise.corrupt(classes, noise.sparse({(0, 1): (0.3, 0.2)}, 2), generator=generator(6))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    (found,) = pair_rates(wide, labels, torch.tensor([[0, 1]]), 2).model.rates.tolist()
    assert torch.equal(torch.rand(1), expected)
    assert found == pytest.approx([0.3, 0.2], abs=0.06)


def test_labels_without_information_still_give_a_valid_model() -> None:
    features = torch.randn(400, 2, generator=generator())
    labels = torch.randint(2, (400,), generator=generator(1))
    model = pair_rates(features, labels, torch.tensor([[0, 1]]), 2).model
    assert 0 < 1 - float(model.rates.sum()) < 0.5


def test_samples_are_capped_and_no_pairs_are_no_work() -> None:
    features, classes = blobs(3000, 2, distance=4.0)
    labels = noise.corrupt(classes, noise.sparse({(0, 1): (0.3, 0.1)}, 2), generator=generator())
    found = pair_rates(features, labels, torch.tensor([[0, 1]]), 2, max_samples=600)
    torch.testing.assert_close(found.model.rates[0], torch.tensor([0.3, 0.1]), rtol=0, atol=0.1)
    assert int(found.neighbours) <= 150
    assert pair_rates(features, labels, torch.zeros(0, 2).long(), 2).model.rates.shape == (0, 2)


@pytest.mark.parametrize(
    ("labels", "pairs", "message"),
    [
        (torch.zeros(5).long(), torch.tensor([[0, 1]]), "differ in length"),
        (torch.zeros(30).long(), torch.tensor([[0, 1]]), "needs 100"),
        (torch.full((30,), 9), torch.tensor([[0, 1]]), r"0\.\.2"),
        (torch.zeros(30).long(), torch.tensor([[0, 1], [1, 2]]), "disjoint"),
    ],
)
def test_bad_input_is_refused(labels: Tensor, pairs: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_rates(torch.randn(30, 2), labels, pairs, 3)
