"""Out-of-fold probabilities: unseen labels, early stopping, determinism, input types."""

from __future__ import annotations

import pytest
import torch
from fdiv_noisy.estimation import Fit, cross_fit_probabilities
from fdiv_noisy.estimation.cross_fit import pooled
from torch import Tensor, nn


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int) -> tuple[Tensor, Tensor]:
    classes = torch.randint(3, (n,), generator=generator())
    return 3.0 * torch.eye(3)[classes] + torch.randn(n, 3, generator=generator(1)), classes


def test_probabilities_approach_the_true_posterior() -> None:
    inputs, labels = blobs(3000)
    probs = cross_fit_probabilities(inputs, labels, 3)
    # equal spherical normals at 3 e_k: log P(k | x) is 3 x_k up to a constant
    truth = (3.0 * inputs).softmax(1)
    assert float((probs - truth).abs().mean()) < 0.03
    torch.testing.assert_close(probs.sum(1), torch.ones(3000))


def test_no_sample_sees_its_own_label() -> None:
    inputs = torch.randn(400, 20, generator=generator())
    labels = torch.randint(2, (400,), generator=generator(1))  # nothing to learn but by heart
    own = []
    for patience in (1, 30):
        fit = Fit(epochs=30, patience=patience, learning_rate=1e-2)
        probs = cross_fit_probabilities(inputs, labels, 2, fit=fit)
        own.append(probs.gather(1, labels[:, None]))
        assert float(own[-1].mean()) == pytest.approx(0.5, abs=0.06)
    assert float(own[0].std()) < 0.25  # stopped early: not sure of anything


def test_runs_repeat_and_leave_the_random_state_alone() -> None:
    inputs, labels = blobs(200)
    fit = Fit(epochs=2)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = cross_fit_probabilities(inputs, labels, 3, fit=fit, seed=1)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(cross_fit_probabilities(inputs, labels, 3, fit=fit, seed=1), first)
    assert not torch.equal(cross_fit_probabilities(inputs, labels, 3, fit=fit, seed=2), first)


def test_every_sample_is_predicted_by_a_network_that_was_not_trained_on_it() -> None:
    """Networks that know by heart what they saw: each input holds its own number, each forward pass records it."""
    numbers = torch.arange(60.0)[:, None]
    networks: list[Recorder] = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trained: set[int] = set()
            self.predicted: set[int] = set()
            self.linear = nn.Linear(1, 2)
            networks.append(self)

        def forward(self, x: Tensor) -> Tensor:
            (self.trained if self.training else self.predicted).update(int(v) for v in x[:, 0].tolist())
            return self.linear(x / 60)

    labels = torch.randint(2, (60,), generator=generator())
    fit = Fit(folds=3, epochs=2, batch_size=4)
    cross_fit_probabilities(numbers, labels, 2, make_model=Recorder, fit=fit)
    assert len(networks) == 3
    for network in networks:  # 40 samples to train on, 4 of them held out; 20 to predict, and the 4
        assert len(network.trained) == 36
        assert not network.trained & network.predicted
        assert len(network.predicted) == 24
    assert set.union(*(network.predicted for network in networks)) == set(range(60))


def test_the_best_epoch_is_kept() -> None:
    inputs, labels = blobs(600)
    losses: dict[int, list[float]] = {0: [], 1: []}
    fit = Fit(epochs=60, patience=4, learning_rate=0.05)
    cross_fit_probabilities(inputs, labels, 3, fit=fit, on_epoch=lambda fold, epoch, loss: losses[fold].append(loss))
    for trace in losses.values():
        assert len(trace) < 60
        assert min(range(len(trace)), key=trace.__getitem__) == len(trace) - 1 - 4


def test_bytes_become_floats_in_the_unit_interval() -> None:
    seen: list[Tensor] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return self.linear(x.flatten(1))

    inputs = torch.randint(256, (40, 1, 2, 2), generator=generator()).to(torch.uint8)
    probs = cross_fit_probabilities(inputs, torch.arange(40) % 2, 2, make_model=Probe, fit=Fit(epochs=1))
    assert probs.shape == (40, 2)
    assert all(x.dtype == torch.float32 and 0 <= float(x.min()) <= float(x.max()) <= 1 for x in seen)


def test_pooled_images_are_block_means() -> None:
    images = torch.randint(256, (5, 28, 28), generator=generator()).to(torch.uint8)
    blocks = images.float().view(5, 14, 2, 14, 2).mean((2, 4)).flatten(1)
    torch.testing.assert_close(pooled(images), (blocks - blocks.mean()) / blocks.std())
    assert pooled(torch.rand(3, 3, 32, 32)).shape == (3, 3 * 16 * 16)
    assert pooled(torch.rand(3, 8, 8)).shape == (3, 64)
    assert pooled(torch.rand(3, 7)).shape == (3, 7)
    assert bool(pooled(torch.ones(3, 7)).isfinite().all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Fit(folds=1), "folds must be >= 2"),
        (lambda: Fit(held_out=1.0), "held_out"),
        (lambda: cross_fit_probabilities(torch.rand(5, 2), torch.zeros(5).long(), 2), "at least 20 samples"),
        (lambda: cross_fit_probabilities(torch.rand(30, 2), torch.zeros(20).long(), 2), "N inputs"),
        (lambda: cross_fit_probabilities(torch.rand(30, 2), torch.full((30,), 2), 2), r"0\.\.1"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
