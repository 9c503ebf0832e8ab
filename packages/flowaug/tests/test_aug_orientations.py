"""Angles, spreads and the frozen classifier, against scipy and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from flowaug import AffineSpace, Alignment, AugmentedClassifier, FlowAugmenter, FlowSpec
from flowaug.baselines import IdentityAugmenter
from flowaug.cli.align import spreads
from flowaug.cli.demo import by_band, demo
from flowaug.cli.options import DemoConfig
from flowaug.flows.circle import circular_deviation, folded
from flowaug.networks import MLP, Standardise, build
from flowaug.warp import rotation_angle
from robustvision_core.data import load
from scipy import stats
from torch import nn


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
def test_circular_deviation_is_scipys(spread: float) -> None:
    angles = 3.0 + spread * torch.randn(200, dtype=torch.float64)
    assert circular_deviation(angles) == pytest.approx(math.degrees(stats.circstd(angles.numpy())), rel=1e-9)


def test_deviation_modulo_modes_ignores_the_mode() -> None:
    angles = 0.1 * torch.randn(300)
    moved = angles + torch.randint(3, (300,)) * 2 * math.pi / 3
    assert circular_deviation(moved, 3) == pytest.approx(circular_deviation(angles, 3), rel=1e-4)
    assert circular_deviation(moved) > 60


def test_folded_keeps_the_direction() -> None:
    angles = torch.linspace(-12, 12, 50)
    assert float(folded(angles).abs().max()) <= math.pi + 1e-6
    torch.testing.assert_close(folded(angles).cos(), angles.cos(), atol=1e-5, rtol=0)


def test_rotation_angle_is_counter_clockwise() -> None:
    space = AffineSpace(("tx", "rot", "scale"))
    w = torch.tensor([[0.3, 0.25, 0.5], [0.0, -0.9, -0.2]])
    torch.testing.assert_close(rotation_angle(space.matrix(w, (9, 9))), math.pi * w[:, 1])


def test_undoing_the_known_angles_brings_sprites_together() -> None:
    """Angles of the data, rotations of the warp and pixels agree in their signs."""
    data = load("sprites", "test", degrees=40, count=40)
    images = data.images.float() / 255
    space = AffineSpace(("rot",), align_corners=False)
    w = (data.extras["angle"] / math.pi)[:, None]
    done = Alignment(space.warp(images, w[:, None])[:, 0], space.matrix(w, (32, 32)), w[None])
    found = spreads(data, images, done)
    assert found["degrees_before"] > 15
    assert found["degrees_after"] < 0.1
    assert found["pixels_after"] < found["pixels_before"] / 3


def test_frozen_classifier_gets_no_gradient_and_gives_the_same_one_to_the_augmenter() -> None:
    model = AugmentedClassifier(build("simple_conv8", 3, 16, 4), FlowAugmenter(AffineSpace(), flow=FlowSpec(2)), 2)
    images, labels = torch.rand(6, 3, 16, 16), torch.randint(4, (6,))
    gradients = []
    for frozen in (False, True):
        model.frozen = frozen
        model.zero_grad()
        model.loss(images, labels, 0.1, torch.Generator().manual_seed(0)).total.backward()
        gradients.append([p.grad for p in model.augmenter.parameters()])
        given = [p.grad is not None for p in model.classifier.parameters()]
        assert not any(given) if frozen else all(given)
    for joint, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(joint, alone)


def test_frozen_batch_norm_stays() -> None:
    classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2))
    model = AugmentedClassifier(classifier, IdentityAugmenter())
    model.frozen = True
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    model.train().loss(torch.rand(5, 3, 2, 2), torch.randint(2, (5,)))
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_identity_augmenter_is_no_augmentation() -> None:
    classifier = build("simple_conv8", 3, 16, 4).eval()
    x, y = torch.rand(5, 3, 16, 16), torch.randint(4, (5,))
    model = AugmentedClassifier(classifier, IdentityAugmenter(), n_train=3)
    torch.testing.assert_close(model.predict(x, n=2), classifier(x).softmax(-1).detach())
    expected = nn.functional.cross_entropy(classifier(x), y)
    torch.testing.assert_close(model.loss(x, y, 0.5).total, expected)


def test_standardise_and_mlp() -> None:
    x = torch.rand(3, 2, 4, 4)
    mean, std = torch.tensor([0.1, 0.2]), torch.tensor([0.5, 2.0])
    standardised = Standardise(mean, std)(x)
    torch.testing.assert_close(standardised[:, 1], (x[:, 1] - 0.2) / 2.0)
    mlp = MLP(3, 4, 32)  # the published classifier of 32-pixel sprites: 3072-256-256-4
    assert [tuple(p.shape) for p in mlp.parameters() if p.dim() == 2] == [(256, 3072), (256, 256), (4, 256)]


def test_bands_of_the_demo() -> None:
    data = load("sprites", "test", degrees=90, size=16, count=400)
    turn = torch.minimum(data.extras["angle"].abs(), math.pi - data.extras["angle"].abs()).rad2deg()
    # right where the turn is under 60 degrees: the first two bands, and neither of the others
    assert by_band(data, turn < 60) == [1.0, 1.0, 0.0, 0.0]


def test_demo_prints_and_draws(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(DemoConfig(epochs=3, train_size=64, device="cpu", out=str(tmp_path)))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[2:4]] == ["no augmentation", "learned, per image"]
    assert (tmp_path / "plots" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plots" / "rotations.png").exists()
