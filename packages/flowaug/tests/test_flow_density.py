"""Densities of the flows: normalised, the same both ways, and with autograd's determinants."""

from __future__ import annotations

import math

import normflows as nf
import pytest
import torch
from flowaug.flows import (
    AffineCoupling,
    CircularShift,
    ConditionalFlow,
    FlowSpec,
    SplineCoupling,
    TanhBox,
    alternating_sets,
)
from flowaug.flows.box import tanh_log_derivative
from torch import Tensor

BASES = ["mog", "uniform", "student_t"]
COUPLINGS = ["affine", "rqs"]


@pytest.mark.parametrize("bins", [4, 8])
def test_a_spline_is_the_identity_before_training(bins: int) -> None:
    layer = SplineCoupling(3, 4, [0, 2], bins=bins).double()
    torch.nn.init.zeros_(layer.outer.weight)
    z = torch.linspace(-4, 4, 33, dtype=torch.float64)[:, None].expand(-1, 3)
    w, log_det = layer.transform(z, torch.zeros(33, 64, dtype=torch.float64))
    torch.testing.assert_close(w, z, rtol=0, atol=1e-6)
    assert float(log_det.detach().abs().max()) < 1e-6


def test_a_mixture_begins_within_its_spread() -> None:
    from flowaug.flows.bases import MixtureBase

    base = MixtureBase(2, 4, 500)
    start = base.free.detach() if base.free.dim() > 1 else base.free.detach().view(500, -1)
    assert 0.15 < float(start[:, :2].abs().max()) <= 0.2
    assert base.temperature == 0.1


def make_flow(d: int, base: str, coupling: str, **options) -> ConditionalFlow:
    spec = {"layers": 2, "width": 8, "components": 3, "scale": 0.3, "base": base, "coupling": coupling} | options
    flow = ConditionalFlow(d, 4, FlowSpec(**spec), (True,) + (False,) * (d - 1)).double()
    with torch.no_grad():
        for parameter in flow.parameters():  # away from the identity, so that every layer counts
            parameter.add_(0.15 * torch.randn_like(parameter))
    return flow


def nodes(flow: ConditionalFlow, context: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """Scrambled Sobol points z (N, d) in front of the tanh where samples are, and the logarithms of their weights (N,).

    Cauchy nodes keep the sum finite for heavy tails. The uniform base has a compact support with walls: its nodes lie
    in a box a little larger than that of many samples. What a box missed would show as an integral below one.
    """
    points = torch.quasirandom.SobolEngine(flow.dim, scramble=True, seed=1).draw(2**power, dtype=torch.float64)
    z = flow.base.draw(context, 20000)[0]
    for layer in flow.layers:
        z, _ = layer(z, context[:, None])
    if flow.spec.base == "uniform":
        low, high = z[0].amin(0), z[0].amax(0)
        low, high = low - 0.02 * (high - low), high + 0.02 * (high - low)
        return low + points * (high - low), (high - low).log().sum().expand(len(points))
    low, middle, high = torch.quantile(z[0], torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), dim=0)
    angle, scale = math.pi * (points.clamp(1e-12, 1 - 1e-12) - 0.5), (high - low) / 2
    return middle + scale * torch.tan(angle), (scale * math.pi / angle.cos().square()).log().sum(-1)


@torch.no_grad()
def integral(flow: ConditionalFlow, context: Tensor, power: int) -> float:
    """Of exp(log_prob) over the whole space of w."""
    w, weight = nodes(flow, context, power)
    if flow.box is not None:  # log(1 - tanh^2) = -2 log cosh, written here apart from the code under test
        weight = weight - 2 * (w.abs() + torch.log1p(torch.exp(-2 * w.abs())) - math.log(2)).sum(-1)
        w = w.tanh()
    if flow.shift is not None:  # the phase carries nodes along: dense where the density is
        w = (w + flow.shift(torch.zeros_like(w), context.expand(len(w), -1))[0] + 1).remainder(2) - 1
    return float((flow.log_prob(w[None], context)[0] + weight).exp().mean())


def train_briefly(flow: ConditionalFlow, context: Tensor) -> None:
    """A few steps towards a density with a tilted valley."""
    optimizer = torch.optim.Adam(flow.parameters(), 0.005)
    for _ in range(15):
        w, log_prob = flow.sample(context.expand(32, -1), 4)
        loss = (0.3 * log_prob + (w.sum(-1) - 0.4).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_density_integrates_to_one_before_and_after_training(d: int, base: str, coupling: str) -> None:
    flow, context = make_flow(d, base, coupling), torch.randn(1, 4, dtype=torch.float64)
    power = {1: 15, 2: 16, 3: 18 if base == "uniform" else 17}[d]
    assert integral(flow, context, power) == pytest.approx(1, abs=1e-3)
    train_briefly(flow, context)
    assert integral(flow, context, power) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("base", BASES)
def test_density_without_box_integrates_to_one(base: str) -> None:
    flow, context = make_flow(2, base, "affine", box=None), torch.randn(1, 4, dtype=torch.float64)
    assert integral(flow, context, 16) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("layers", [0, 3, 12])
@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("d", [1, 2, 6])
def test_sampled_and_recomputed_densities_agree(d: int, base: str, coupling: str, layers: int) -> None:
    flow = ConditionalFlow(
        d, 4, FlowSpec(layers, base=base, coupling=coupling, width=16), (True,) + (False,) * (d - 1)
    ).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        context = torch.randn(5, 4, dtype=torch.float64)
        w, log_prob = flow.sample(context, 50)
        assert w.shape == (5, 50, d)
        assert bool((w.abs() <= 1).all())
        torch.testing.assert_close(flow.log_prob(w, context), log_prob, rtol=0, atol=1e-9)


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("kind", ["affine", "rqs", "tanh", "circular"])
def test_log_determinants_equal_autograd(kind: str, d: int) -> None:
    moved = list(range(d))[d // 2 :]
    layer = {
        "affine": lambda: AffineCoupling(d, 3, moved, 16),
        "rqs": lambda: SplineCoupling(d, 3, moved, 16),
        "tanh": TanhBox,
        "circular": lambda: CircularShift([k % 2 == 0 for k in range(d)], 3),
    }[kind]()
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    context = torch.randn(4, 3, dtype=torch.float64)
    z = torch.randn(4, d, dtype=torch.float64) * 0.8
    out, log_det = layer(z, context)
    for k in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda v, k=k: layer(v[None], context[k : k + 1])[0][0], z[k])
        torch.testing.assert_close(log_det[k], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-10)
    back, inverse_log_det = layer.inverse(out, context)
    if kind == "circular":
        back = back - 2 * torch.round((back - z) / 2)  # the same point of the circle
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)


def test_tanh_log_derivative_stays_exact_where_the_naive_one_saturates() -> None:
    z = torch.tensor([0.0, 1.0, 8.0, 10.0, 300.0], dtype=torch.float64)
    # 1 - tanh^2 = 4 exp(-2|z|) / (1 + exp(-2|z|))^2, in logarithms
    exact = math.log(4) - 2 * z.abs() - 2 * torch.log1p(torch.exp(-2 * z.abs()))
    torch.testing.assert_close(tanh_log_derivative(z), exact, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(tanh_log_derivative(-z), exact, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("d", range(1, 9))
def test_two_couplings_in_a_row_change_every_coordinate_once(d: int) -> None:
    sets = alternating_sets(d, 6, torch.Generator().manual_seed(d))
    for first, second in zip(sets[::2], sets[1::2], strict=True):
        assert sorted(first + second) == (list(range(d)) if d > 1 else [0, 0])


@pytest.mark.parametrize("base", BASES)
def test_layers_and_bases_work_inside_normflows(base: str) -> None:
    flow = make_flow(3, base, "affine", box=None)
    theirs = nf.ConditionalNormalizingFlow(flow.base, list(flow.layers)).double()
    context = torch.randn(6, 4, dtype=torch.float64)
    w, log_prob = theirs.sample(6, context=context)
    torch.testing.assert_close(log_prob, flow.log_prob(w[:, None], context)[:, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(theirs.log_prob(w, context), log_prob, rtol=0, atol=1e-9)
    log_prob.sum().backward()  # normflows changes log-densities in place: ours survive it
    assert all(parameter.grad is not None for parameter in flow.layers.parameters())


def test_mean_of_samples_is_that_of_the_density() -> None:
    flow, context = make_flow(1, "mog", "affine"), torch.randn(1, 4, dtype=torch.float64)
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 10000 - 1
    with torch.no_grad():
        density = flow.log_prob(grid.view(1, -1, 1), context).exp()[0]
        w, _ = flow.sample(context, 200000)
    edges = torch.linspace(-1, 1, 21, dtype=torch.float64)
    expected = density.view(20, -1).mean(1) * 0.1
    counted = torch.histogram(w.flatten(), edges)[0] / w.numel()
    torch.testing.assert_close(counted, expected, rtol=0, atol=5e-3)


def test_seed_and_generator_make_samples_reproducible() -> None:
    flow, context = make_flow(3, "student_t", "affine"), torch.randn(2, 4, dtype=torch.float64)
    first = flow.sample(context, 5, torch.Generator().manual_seed(1))[0]
    torch.testing.assert_close(flow.sample(context, 5, torch.Generator().manual_seed(1))[0], first, rtol=0, atol=0)
    assert not torch.equal(flow.sample(context, 5, torch.Generator().manual_seed(2))[0], first)


def test_outside_box_and_support_the_density_is_zero() -> None:
    boxed, bare = make_flow(2, "mog", "affine"), make_flow(2, "uniform", "affine", box=None)
    far = torch.full((1, 1, 2), 1.01, dtype=torch.float64)
    context = torch.zeros(1, 4, dtype=torch.float64)
    assert boxed.log_prob(far, context).item() == -math.inf
    assert bare.log_prob(1e6 * far, context).item() == -math.inf


def test_autocast_leaves_densities_in_float32() -> None:
    flow, context = make_flow(3, "mog", "affine").float(), torch.randn(3, 4)
    generator = torch.Generator()
    plain = flow.sample(context, 4, generator.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = flow.sample(context.bfloat16().float(), 4, generator.manual_seed(0))
    assert mixed[1].dtype == torch.float32
    torch.testing.assert_close(mixed[0], plain[0], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "options", [{"base": "normal"}, {"coupling": "maf"}, {"box": "clamp"}, {"gradient": "soft"}, {"layers": -1}]
)
def test_wrong_specifications_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"must be one of|expected"):
        FlowSpec(**options)


def test_wrong_shapes_are_refused() -> None:
    flow = make_flow(2, "mog", "affine")
    with pytest.raises(ValueError, match=r"expected w \(1, n, 2\)"):
        flow.log_prob(torch.zeros(1, 3, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="one context per sample"):
        flow.base(3, torch.zeros(2, 4))
