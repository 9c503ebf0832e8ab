"""Validators, calibration, augmentation, batch norm and networks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pseudolabel_da as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pseudolabel_da.diagnosis.validators import accuracy, entropy
from pseudolabel_da.networks import NETWORKS, SmallCNN, build
from pseudolabel_da.reading.augmentation import _smooth_noise, uniform
from pseudolabel_da.reading.prediction import predict_logits
from pseudolabel_da.reading.reader import Reader, scale_images
from pseudolabel_da.reading.samples import TensorSamples
from scipy import optimize, stats
from sklearn import metrics
from torch import nn


def test_entropies_equal_scipy() -> None:
    probs = torch.randn(30, 7, dtype=torch.float64).mul(3).softmax(1)
    probs[0] = torch.eye(7)[2]  # 0 log 0 = 0
    wanted = stats.entropy(probs.numpy(), axis=1)
    assert entropy(probs).tolist() == pytest.approx(wanted.tolist(), abs=1e-12)
    assert pl.mean_entropy(probs).item() == pytest.approx(wanted.mean(), rel=1e-12)
    spread = stats.entropy(probs.numpy().mean(0)) - wanted.mean()
    assert pl.information_maximization(probs).item() == pytest.approx(spread, rel=1e-12)
    assert pl.TARGET_VALIDATORS["negative_entropy"](probs).item() == pytest.approx(-wanted.mean(), rel=1e-12)


def test_information_maximization_is_mutual_information() -> None:
    counts = torch.tensor([[3, 0, 1], [0, 4, 0], [2, 2, 2]])
    rows = counts.double() / counts.sum(1, keepdim=True)
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(round(float(rows[i, j]) * 12))]
    wanted = metrics.mutual_info_score([i for i, _ in pairs], [j for _, j in pairs])
    assert pl.information_maximization(rows).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_soft_neighborhood_density_equals_a_loop(chunk: int) -> None:
    features = torch.randn(20, 5, dtype=torch.float64).softmax(1)
    x = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    total = 0.0
    for i in range(20):
        similarity = np.array([x[i] @ x[j] / 0.05 for j in range(20) if j != i])
        weights = np.exp(similarity - similarity.max())
        total += stats.entropy(weights / weights.sum())
    assert pl.soft_neighborhood_density(features, chunk=chunk).item() == pytest.approx(total / 20, rel=1e-10)


def test_density_prefers_tight_clusters_and_refuses() -> None:
    tight = torch.eye(3).repeat(10, 1)
    assert float(pl.soft_neighborhood_density(tight)) == pytest.approx(math.log(9), rel=1e-4)
    assert pl.soft_neighborhood_density(torch.rand(30, 3)) < math.log(29)
    for arguments in ((tight[:1],), (tight, 0.0)):
        with pytest.raises(ValueError, match="must be"):
            pl.soft_neighborhood_density(*arguments)


def test_accuracy_counts_nan_as_wrong() -> None:
    probs = torch.tensor([[0.9, 0.1], [math.nan, 0.0], [0.3, 0.7]])
    assert accuracy(probs, torch.tensor([0, 0, 0])).item() == pytest.approx(1 / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 8.0), st.integers(2, 6))
def test_temperature_is_where_scipy_finds_it(seed: int, scale: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(200, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    logits = logits * scale

    def loss(inverse: float) -> float:
        return float(nn.functional.cross_entropy(logits * inverse, labels))

    found: Any = optimize.minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-10})
    assert 1 / pl.fit_temperature(logits, labels).item() == pytest.approx(found.x, rel=1e-4)
    assert loss(1 / pl.fit_temperature(logits, labels).item()) <= found.fun + 1e-12


def test_temperature_at_its_ends() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert pl.fit_temperature(logits, torch.tensor([0, 1])).item() == pytest.approx(0.01, rel=1e-3)
    assert pl.fit_temperature(logits, torch.tensor([1, 0])).item() == pytest.approx(100, rel=1e-3)
    with pytest.raises(ValueError, match="N > 0"):
        pl.fit_temperature(logits[:0], torch.zeros(0, dtype=torch.long))


def test_temperature_leaves_out_what_is_no_number() -> None:
    logits = torch.randn(200, 4, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
    wanted = pl.fit_temperature(logits, labels)
    assert 0.3 < wanted < 3
    strange = torch.tensor([[math.nan, 0, 0, 0], [0, math.inf, 0, 0], [0, 0, -math.inf, 0]], dtype=torch.float64)
    more = torch.cat([strange, logits]), torch.cat([torch.zeros(3, dtype=torch.long), labels])
    torch.testing.assert_close(pl.fit_temperature(*more), wanted)


def test_calibration_error_equals_a_loop() -> None:
    probs = torch.randn(300, 4, dtype=torch.float64).mul(2).softmax(1)
    labels = torch.randint(4, (300,))
    unsure = probs.amax(1) < 0.6
    labels[unsure] = probs[unsure].argmax(1)  # too little confidence there, and too much elsewhere
    total = 0.0
    for b in range(10):
        inside = [i for i in range(300) if b / 10 < float(probs[i].max()) <= (b + 1) / 10]
        gap = sum(float(probs[i].max()) - float(probs[i].argmax() == labels[i]) for i in inside)
        total += abs(gap) / 300
    assert pl.expected_calibration_error(probs, labels, 10).item() == pytest.approx(total, rel=1e-9)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augmentation_is_repeatable_within_range_and_own_to_each_image() -> None:
    images = torch.rand(1, 3, 12, 12).mul(2).sub(1).expand(40, -1, -1, -1)
    first = pl.strong_augment(images, generator())
    assert torch.equal(first, pl.strong_augment(images, generator()))
    assert first.amin() >= -1
    assert first.amax() <= 1
    assert len(first.flatten(1).unique(dim=0)) == 40
    assert pl.strong_augment(images.double(), generator()).dtype == torch.float64


def test_augmentation_commutes_with_the_range() -> None:
    images = torch.rand(6, 3, 10, 10).double()
    wide = pl.strong_augment(images * 2 - 1, generator())
    narrow = pl.strong_augment(images, generator(), value_range=(0.0, 1.0))
    torch.testing.assert_close(narrow * 2 - 1, wide)


PLAIN = {"shift": 0, "invert": 0.0, "contrast": (1.0, 1.0), "brightness": (0.0, 0.0), "blend": 0.0}
PLAIN |= {"by_channel": 0.0}


def test_each_part_of_the_augmentation() -> None:
    images = torch.rand(64, 3, 9, 9).mul(1.6).sub(0.8)
    torch.testing.assert_close(pl.strong_augment(images, generator(), **PLAIN), images)
    torch.testing.assert_close(pl.strong_augment(images, generator(), **PLAIN | {"invert": 1.0}), -images)
    half = pl.strong_augment(images, generator(), **PLAIN | {"invert": 0.5})
    signs = torch.stack([torch.isclose(half, sign * images).flatten(1).all(1) for sign in (1, -1)])
    assert signs.sum(0).eq(1).all()
    assert 16 < signs[1].sum() < 48
    apart = pl.strong_augment(images, generator(), **PLAIN | {"invert": 0.5, "by_channel": 1.0})
    signs = torch.stack([torch.isclose(apart, sign * images).flatten(2).all(2) for sign in (1, -1)])
    assert signs.sum(0).eq(1).all()  # every channel whole
    assert len({tuple(row) for row in signs[1].tolist()}) == 8  # in every combination
    recoloured = pl.strong_augment(images, generator(), **PLAIN | {"contrast": (0.5, 0.9), "brightness": (-0.1, 0.1)})
    slope = (recoloured[..., 1:] - recoloured[..., :-1]) / (images[..., 1:] - images[..., :-1])
    torch.testing.assert_close(slope.amax((2, 3)), slope.amin((2, 3)), rtol=1e-2, atol=1e-2)
    assert len(slope.mean((2, 3)).flatten().round(decimals=4).unique()) > 100  # a factor for each channel
    noise = pl.strong_augment(images, generator(), **PLAIN | {"blend": 1.0, "strength": 0.5}) - images
    assert noise.abs().flatten(1).amax(1).gt(0).all()


def test_shift_moves_whole_images_and_repeats_the_border() -> None:
    image = torch.arange(36.0).view(1, 1, 6, 6) / 36
    moved = pl.strong_augment(image.expand(200, 1, 6, 6), generator(), **PLAIN | {"shift": 2})
    padded = nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")
    windows = {tuple(padded[0, 0, y : y + 6, x : x + 6].flatten().tolist()) for y in range(5) for x in range(5)}
    seen = {tuple(row) for row in moved.flatten(1).tolist()}
    assert seen == windows


def test_noise_of_a_size_is_drawn_for_every_image_of_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 a draw near 1 becomes 1, which names no size."""
    monkeypatch.setattr(torch, "rand", lambda size, **options: torch.full(size, 0.9999))
    images = torch.zeros(3, 1, 8, 8, dtype=torch.bfloat16)
    noise = _smooth_noise(images, (2, 4), partial(uniform, images, None))
    assert bool((noise != 0).any((1, 2, 3)).all())


def test_augmentation_refuses() -> None:
    with pytest.raises(ValueError, match="images must be"):
        pl.strong_augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="value_range"):
        pl.strong_augment(torch.zeros(2, 3, 8, 8), value_range=(1.0, 1.0))


def test_reestimated_statistics_are_the_means_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model[1].eval()
    batches = [torch.randn(n, 3) * 4 + 2 for n in (5, 9, 30)]
    modes = [m.training for m in model.modules()]
    pl.reestimate_batch_norm(model, batches, model)
    torch.testing.assert_close(model[0].running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    torch.testing.assert_close(model[2].running_mean, torch.zeros(3), atol=1e-5, rtol=0)  # dropout rested
    assert [m.training for m in model.modules()] == modes
    assert model[0].momentum == 0.3


def test_statistics_stay_without_a_batch_and_modes_come_back_after_an_error() -> None:
    model = nn.BatchNorm1d(2)
    statistics = model.running_mean
    assert statistics is not None
    statistics.fill_(3)
    pl.reestimate_batch_norm(model, [], model)
    assert statistics.tolist() == [3, 3]
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        pl.reestimate_batch_norm(model, [torch.rand(1, 2)], model)
    assert model.training
    assert model.momentum == 0.1


@pytest.mark.parametrize(("samples", "batch"), [(1, 256), (5, 1), (2, 1)])
def test_target_statistics_of_few_samples(samples: int, batch: int) -> None:
    """One sample has no variance and leaves them as they are; batches of one are joined."""
    model, x = nn.BatchNorm1d(2), torch.randn(samples, 2)
    reader = Reader(model, torch.device("cpu"), torch.float32, scale_images, batch=batch)
    reader.estimate_statistics(TensorSamples(x), 20, torch.Generator())
    assert model.running_mean is not None
    assert bool(model.running_mean.any()) == (samples > 1)


def test_what_a_model_caches_in_prediction_can_be_trained_with() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(2, 3), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.scale is None:
                self.scale = torch.ones(3) * 2
            return self.linear(x) * self.scale

    model = Caching()
    assert predict_logits(model, [torch.rand(4, 2)]).shape == (4, 3)
    model(torch.rand(4, 2)).sum().backward()
    assert predict_logits(model.to("meta"), []).device.type == "meta"  # the model's device, without a batch too


def test_frozen_batch_norm_keeps_statistics_and_learns_weights() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    with pl.frozen_batch_norm(model):
        assert model[1].training
        model(torch.randn(1, 2)).sum().backward()
    assert model[0].running_mean.tolist() == [0, 0]
    assert model[0].weight.grad is not None
    assert model[0].training


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_networks(name: str, channels: int, side: int) -> None:
    network = build(name, channels, side, 7)
    images = torch.randn(2, channels, side, side)
    network.eval()
    logits = network(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(network.head(network.features(images)), logits)
    assert all(p.requires_grad for p in network.parameters())


def test_small_network_size_and_refusals() -> None:
    assert sum(p.numel() for p in SmallCNN().parameters()) == 29_578
    with pytest.raises(ValueError, match="at least 8"):
        SmallCNN(3, 7)
    with pytest.raises(ValueError, match="unknown network"):
        build("vgg", 3, 28, 10)
