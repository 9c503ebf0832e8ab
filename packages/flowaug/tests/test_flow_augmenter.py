"""Augmenters, rivals, alignment, metrics and networks."""

from __future__ import annotations

import math
import subprocess
import sys

import flowaug
import pytest
import torch
from flowaug import (
    AffineSpace,
    AugerinoAugmenter,
    CropSpace,
    FlowAugmenter,
    FlowSpec,
    LocationRelationAugmenter,
    MeanFieldAugmenter,
    PolicyAugmenter,
    PSTNAugmenter,
)
from flowaug.augmenter import Augmenter
from flowaug.flows.circle import mean_transform
from flowaug.metrics import (
    by_class,
    expected_kl,
    invariance_bound,
    invariance_width,
    nearest_rotation,
    rotate,
    rotation_curve,
    rotation_error,
    tv_bound,
)
from flowaug.networks import NETWORKS, FixupResNet, build
from flowaug.warp import warp
from torch import Tensor, nn


def test_augerino_is_a_flow_without_layers_over_a_uniform_base() -> None:
    space, x = AffineSpace(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    augerino = AugerinoAugmenter(space, 0.7).double()
    with torch.no_grad():
        augerino.raw.add_(0.5 * torch.randn(6))
    flow = FlowAugmenter(space, None, FlowSpec(layers=0, base="uniform", box=None)).double()
    base = flow.flow.base
    low, high = base.log_scales
    with torch.no_grad():  # the base's raw log-sides that give Augerino's ranges
        middle, half = (low + high) / 2, (high - low) / 2
        base.free[0, 6:] = middle + half * torch.atanh((augerino.width.log() - middle) / half)
    ours, theirs = (a(x, 5, torch.Generator().manual_seed(0)) for a in (flow, augerino))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    probe = torch.rand(3, 50, 6, dtype=torch.float64) - 0.5
    torch.testing.assert_close(flow.log_prob(x, probe), augerino.log_prob(x, probe))
    assert bool(augerino.log_prob(x, probe).isinf().any())


AUGMENTERS = {
    "flow": lambda: FlowAugmenter(AffineSpace(), flow=FlowSpec(layers=3, width=8, components=3)),
    "crop": lambda: FlowAugmenter(CropSpace(), flow=FlowSpec(layers=3, width=8, coupling="rqs")),
    "augerino": lambda: AugerinoAugmenter(AffineSpace()),
    "mean_field": lambda: MeanFieldAugmenter(AffineSpace()),
    "location_relation": lambda: LocationRelationAugmenter(),
    "pstn": lambda: PSTNAugmenter(AffineSpace()),
}


@pytest.mark.parametrize("name", AUGMENTERS)
def test_augmenters_keep_one_contract(name: str) -> None:
    augmenter, x = AUGMENTERS[name](), torch.rand(4, 3, 16, 16)
    images, w, log_prob = augmenter(x, 3, torch.Generator().manual_seed(0))
    assert images.shape == (4, 3, 3, 16, 16)
    assert w.shape == (4, 3, augmenter.space.dim)
    torch.testing.assert_close(augmenter.log_prob(x, w), log_prob, rtol=0, atol=1e-4)
    assert torch.equal(augmenter(x, 3, torch.Generator().manual_seed(0)).w, w)
    assert augmenter.entropy(x, 7).shape == (4,)
    (images.square().mean() + log_prob.mean()).backward()
    grads = [p.grad for p in augmenter.parameters()]
    assert any(g is not None and bool(g.abs().max() > 0) for g in grads)


def test_entropy_of_uniform_ranges_is_exact() -> None:
    augmenter = MeanFieldAugmenter(AffineSpace())
    low, high = augmenter.ranges(torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(augmenter.entropy(torch.rand(2, 3, 8, 8)), (high - low).log().sum(-1), rtol=0.01, atol=0)
    assert bool((low >= -1).all() & (high <= 1).all())


def test_location_relation_has_321_crops_inside_the_image() -> None:
    augmenter, x = LocationRelationAugmenter(), torch.rand(2, 3, 32, 32)
    assert augmenter.table.shape == (321, 4)
    assert float(augmenter.table.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(augmenter.log_mass(x).exp().sum(1), torch.ones(2))
    every = augmenter.log_prob(x, augmenter.table.expand(2, -1, -1))
    torch.testing.assert_close(every, augmenter.log_mass(x))
    assert bool(augmenter.log_prob(x, torch.full((2, 1, 4), 0.123)).isinf().all())
    likely = augmenter.most_likely(x, 3)
    torch.testing.assert_close(augmenter.log_prob(x, likely), augmenter.log_mass(x).topk(3).values)


def test_pstn_has_student_samples_and_a_gamma_penalty() -> None:
    augmenter, x = (
        PSTNAugmenter(AffineSpace(("rot",)), None, shape=2.0, scale=0.1).double(),
        torch.rand(1, 3, 8, 8).double(),
    )
    w, _ = augmenter.sample(x, 200000, torch.Generator().manual_seed(0))
    t = 1.3  # the distribution function for 4 degrees of freedom is elementary
    exact = 0.5 + 0.375 * t / math.sqrt(1 + t * t / 4) * (1 - t * t / (12 * (1 + t * t / 4)))
    assert float((w < 0.1 * t).double().mean()) == pytest.approx(exact, abs=0.004)
    assert float(augmenter.kl_to_prior(x).detach()) == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        augmenter.head.bias[1] += 0.7  # the rate times e^0.7: a (e^r - 1 - r) with r = -0.7 for the ratio of rates
    ratio = math.exp(-0.7)
    assert float(augmenter.kl_to_prior(x).detach()) == pytest.approx(2 * (ratio - 1 + 0.7), abs=1e-6)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_policies_give_views(policy: str) -> None:
    x = torch.rand(3, 3, 16, 16)
    images, w, log_prob = PolicyAugmenter(policy)(x, 2)
    assert images.shape == (3, 2, 3, 16, 16)
    assert w.shape == (3, 2, 0)
    assert float(log_prob.abs().max()) == 0
    assert not torch.equal(images[:, 0], images[:, 1])
    assert bool(((images >= 0) & (images <= 1)).all())


class Pointer(Augmenter):
    """Knows the orientation of an image with one bright spot, and points back upright with some spread."""

    def angle(self, x: Tensor) -> Tensor:
        line = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        right = (x[:, 0] * line).sum((-2, -1))
        up = -(x[:, 0] * line[:, None]).sum((-2, -1))
        return torch.atan2(-right, up) / math.pi  # counter-clockwise from the top, in half turns

    def sample(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        w = torch.zeros(len(x), n, self.space.dim, dtype=x.dtype)
        noise = 0.1 * torch.randn(len(x), n, dtype=x.dtype, generator=generator)
        w[..., self.space.names.index("rot")] = (-self.angle(x)[:, None] + noise + 1).remainder(2) - 1
        return w, torch.zeros(len(x), n)

    def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
        raise AssertionError("alignment needs samples alone")


@pytest.mark.parametrize("compose", ["group", "lie"])
def test_alignment_reduces_the_spread_across_the_half_turn(compose: str) -> None:
    line = torch.linspace(-1, 1, 33)
    upright = torch.exp(-20 * ((line[:, None] + 0.5) ** 2 + line[None] ** 2))[None, None]
    angles = torch.tensor([-175.0, -120.0, -40.0, 0.0, 80.0, 150.0, 178.0])
    x = rotate(upright.expand(7, -1, -1, -1), angles)
    augmenter = Pointer(AffineSpace(("tx", "rot")))
    torch.testing.assert_close(180 * augmenter.angle(x), angles, rtol=0, atol=1.5)
    aligned = augmenter.align(x, steps=30, gamma=0.2, n=50, compose=compose)
    assert float((180 * augmenter.angle(aligned.images)).abs().max()) < 8
    assert float((aligned.images - upright).abs().mean()) < 0.3 * float((x - upright).abs().mean())
    assert aligned.means.shape == (30, 7, 2)
    torch.testing.assert_close(aligned.images, warp(x, aligned.matrices[:, None])[:, 0], rtol=0, atol=1e-6)


def test_means_are_circular_where_periodic() -> None:
    w = torch.tensor([[[0.95, 0.5], [-0.95, -0.1]]])
    mean = mean_transform(w, (True, False))
    assert float(mean[0, 0].abs()) == pytest.approx(1)
    assert float(mean[0, 1]) == pytest.approx(0.2)


def test_alignment_of_crops_is_refused() -> None:
    with pytest.raises(ValueError, match="AffineSpace"):
        FlowAugmenter(CropSpace()).align(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="gamma"):
        FlowAugmenter(AffineSpace()).align(torch.rand(1, 3, 8, 8), gamma=2.0)


def test_tv_bound_holds_and_is_half_the_published_one() -> None:
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        g, moved = (3 * torch.randn(2, 4, 40, dtype=torch.float64, generator=generator)).softmax(-1)
        f = (2 * torch.randn(4, 40, 3, dtype=torch.float64, generator=generator)).softmax(-1)
        change, bound, published = tv_bound(g, moved, f)
        assert bool((change <= bound + 1e-12).all())
        torch.testing.assert_close(published, 2 * bound)
    # reached where g and g' stand on the best and worst transform alone
    change, bound, _ = tv_bound(
        torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), torch.tensor([[0.9], [0.2], [0.0]])
    )
    torch.testing.assert_close(change, bound)
    torch.testing.assert_close(change, torch.tensor([0.7]))


def test_invariance_bound_vanishes_for_an_equivariant_augmenter() -> None:
    class Equivariant(Pointer):
        def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
            return 4 * torch.cos(math.pi * (w[..., 0] + self.angle(x)[:, None]))

    class Constant(Pointer):
        def log_prob(self, x: Tensor, w: Tensor) -> Tensor:
            return 4 * torch.cos(math.pi * w[..., 0])

    line = torch.linspace(-1, 1, 33)
    x = torch.exp(-20 * ((line[:, None] + 0.5) ** 2 + line[None] ** 2))[None, None]
    head = nn.Sequential(nn.Flatten(), nn.Linear(33 * 33, 3), nn.Softmax(-1))
    bounds = [invariance_bound(kind(AffineSpace(("rot",))), head, x, 9, 72) for kind in (Equivariant, Constant)]
    assert float(bounds[0].bound.max()) < 0.2 * float(bounds[1].bound.max())
    assert all(bool((b.change <= b.bound + 1e-6).all()) for b in bounds)
    with pytest.raises(ValueError, match="rotations"):
        invariance_bound(Pointer(AffineSpace(("rot", "tx"))), head, x, 1)


def test_rotation_error_is_the_distance_to_the_polar_factor() -> None:
    matrices = torch.randn(50, 2, 2, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrices)
    sign = torch.det(u @ v)
    polar = u @ torch.diag_embed(torch.stack([torch.ones_like(sign), sign], -1)) @ v
    torch.testing.assert_close(nearest_rotation(matrices), polar)
    expected = (polar - matrices).flatten(1).norm(dim=1) / matrices.flatten(1).norm(dim=1)
    torch.testing.assert_close(rotation_error(matrices), expected)
    assert float(rotation_error(polar).max()) < 1e-7


def test_width_of_a_uniform_range_and_of_the_whole_circle() -> None:
    x = torch.rand(2, 3, 8, 8)
    augmenter = AugerinoAugmenter(AffineSpace(("tx", "rot")), width=0.5)
    torch.testing.assert_close(invariance_width(augmenter, x, 20000), torch.full((2,), 0.98 * 45), rtol=0, atol=0.5)
    torch.testing.assert_close(
        invariance_width(augmenter, x, 20000, "tx"), torch.full((2,), 0.98 * 0.25), rtol=0, atol=0.005
    )
    across = Pointer(AffineSpace(("rot",)))
    across.angle = lambda x: torch.ones(len(x))  # ranges that cross the half turn
    expected = 18 * 2.326  # the 99 % quantile of the spread of a tenth of the half turn
    torch.testing.assert_close(invariance_width(across, x, 40000), torch.full((2,), expected), rtol=0, atol=1.0)
    with pytest.raises(ValueError, match="tx, rot"):
        invariance_width(augmenter, x, 10, "shear")


def test_expected_kl_is_zero_for_invariant_predictions_only() -> None:
    x = torch.rand(6, 1, 16, 16)

    def blind(images: Tensor) -> Tensor:
        return torch.tensor([0.2, 0.8]).expand(len(images), 2)

    def seeing(images: Tensor) -> Tensor:
        top = torch.sigmoid(5 * (images[..., :4, :].mean((1, 2, 3)) - 0.4))
        return torch.stack([top, 1 - top], -1)

    assert float(expected_kl(blind, x, 180).abs().max()) == 0
    divergences = expected_kl(seeing, x, 180, draws=3, generator=torch.Generator().manual_seed(0))
    assert bool((divergences > 0).all())
    generator, expected = torch.Generator().manual_seed(0), torch.zeros(6)
    for _ in range(3):
        angles = 180 * (2 * torch.rand(6, generator=generator) - 1)
        p, q = seeing(x), seeing(rotate(x, angles))
        expected += (p * (p / q).log()).sum(-1) / 3
    torch.testing.assert_close(divergences, expected, rtol=0, atol=1e-5)
    means = by_class(divergences, torch.tensor([0, 0, 0, 2, 2, 2]), 3)
    torch.testing.assert_close(means[[0, 2]], torch.stack([divergences[:3].mean(), divergences[3:].mean()]))
    assert bool(means[1].isnan())


def test_rotation_curve_counts_turned_images() -> None:
    x = torch.zeros(4, 1, 9, 9)
    x[:, :, 1, 4] = 1

    def up_or_left(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 1, 4], images[:, 0, 4, 1]], -1)

    labels = torch.tensor([0, 0, 0, 1])
    curve = rotation_curve(up_or_left, [(x[:3], labels[:3]), (x[3:], labels[3:])], [0.0, 90.0])
    torch.testing.assert_close(curve, torch.tensor([0.75, 0.25]))
    with pytest.raises(ValueError, match="at least one batch"):
        rotation_curve(up_or_left, [], [0.0])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_logits(name: str) -> None:
    network = build(name, 3, 32, 7).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert network(x).shape == (2, 7)
        torch.testing.assert_close(network(x[:1]), network(x)[:1], rtol=0, atol=1e-4)


def test_fixup_has_the_published_size_and_starts_at_zero() -> None:
    network = FixupResNet(3, 10)
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert sum(p.numel() for p in network.parameters()) == convolutions + 64 * 10 + 10 + len(network.scalars())
    assert len(network.scalars()) == 3 * 5 + 2
    assert float(network(torch.rand(2, 3, 32, 32)).detach().abs().max()) == 0


def test_wrong_networks_and_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown network"):
        build("resnet", 3, 32, 10)
    with pytest.raises(ValueError, match="depth"):
        FixupResNet(depth=10)
    with pytest.raises(ValueError, match="at least 12"):
        build("lenet", 1, 8, 10)
    with pytest.raises(ValueError, match="context_dim"):
        FlowAugmenter(AffineSpace(), nn.Identity())
    with pytest.raises(ValueError, match="encoder"):
        FlowAugmenter(AffineSpace(), "large")
    with pytest.raises(ValueError, match="policy"):
        PolicyAugmenter("none")


def test_import_is_light_and_every_public_name_is_there() -> None:
    code = "import sys, flowaug; sys.exit(bool({'torch', 'kornia', 'normflows'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in flowaug.__all__:
        assert getattr(flowaug, name).__module__.startswith("flowaug.")
    with pytest.raises(AttributeError, match="nothing"):
        flowaug.nothing  # type: ignore[attr-defined]  # noqa: B018
