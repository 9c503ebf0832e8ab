"""Gradients through samples of a mixture: unbiased where said so, biased where said so."""

from __future__ import annotations

import math

import pytest
import torch
from flowaug.flows import MixtureBase, StudentTBase, implicit_mixture, mixture_log_prob, straight_through_mixture
from torch import Tensor

LOGITS = torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64)
LOC = torch.tensor([[-0.8, 0.2], [0.5, 0.9], [0.7, -0.6]], dtype=torch.float64)
LOG_SCALE = torch.tensor([[-1.2, -0.9], [-1.0, -1.4], [-0.8, -1.1]], dtype=torch.float64)


def exact_gradients(function) -> list[Tensor]:
    """Of E[function(z)] to logits, locations and log-scales, the expectation by a fine grid."""
    parameters = [value.clone().requires_grad_() for value in (LOGITS, LOC, LOG_SCALE)]
    line = torch.linspace(-4, 4, 801, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    log_prob = mixture_log_prob(z, parameters[0].log_softmax(-1), parameters[1], parameters[2])
    value = (log_prob.exp() * function(z)).sum() * (line[1] - line[0]) ** 2
    return list(torch.autograd.grad(value, parameters))


def smooth(z: Tensor) -> Tensor:
    return torch.sin(2 * z[..., 0]) * z[..., 1] + z[..., 0].square() + 0.5 * z[..., 1]


def sampled_gradients(gradient: str, n: int = 200000) -> tuple[list[Tensor], list[Tensor]]:
    """Means and standard errors of the gradients of E[smooth(z)], over 50 independent groups of samples."""
    base = MixtureBase(2, 1, 3, gradient=gradient).double()
    rows = []
    for _ in range(50):
        parameters = [value.clone().requires_grad_() for value in (LOGITS, LOC, LOG_SCALE)]
        log_weights = parameters[0].log_softmax(-1)[None]
        if gradient == "straight_through":
            z = straight_through_mixture(
                log_weights[:, None], parameters[1][None, None], parameters[2][None, None], n // 50, base.temperature
            )
        else:
            with torch.no_grad():
                from flowaug.flows.mixture import draw_components

                z = draw_components(log_weights, parameters[1][None], parameters[2][None], n // 50)
            z = implicit_mixture(z, log_weights[:, None], parameters[1][None, None], parameters[2][None, None])
        rows.append(torch.autograd.grad(smooth(z).mean(), parameters))
    stacked = [torch.stack(values) for values in zip(*rows, strict=True)]
    return [value.mean(0) for value in stacked], [value.std(0) / math.sqrt(50) for value in stacked]


def test_implicit_gradient_is_unbiased_for_every_parameter() -> None:
    means, errors = sampled_gradients("implicit")
    for mean, error, exact in zip(means, errors, exact_gradients(smooth), strict=True):
        assert bool(((mean - exact).abs() < 4.5 * error).all()), (mean, exact, error)
        assert float(error.max()) < 0.02 * float(exact.abs().max())  # tight enough to see a bias


def test_straight_through_gradient_is_biased_for_the_weights_only() -> None:
    means, errors = sampled_gradients("straight_through")
    exact = exact_gradients(smooth)
    assert bool(((means[0] - exact[0]).abs() > 6 * errors[0]).any())
    for mean, error, value in zip(means[1:], errors[1:], exact[1:], strict=True):
        assert bool(((mean - value).abs() < 4.5 * error).all())


def test_implicit_samples_keep_their_values_and_pass_gradcheck() -> None:
    z = torch.randn(4, 2, dtype=torch.float64) * 0.8
    moved = implicit_mixture(z, LOGITS.log_softmax(-1), LOC, LOG_SCALE)
    assert torch.equal(moved, z)

    def flow_of_quantiles(log_weights: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        """z(parameters) that keeps both conditional distribution functions, by bisection."""

        def coordinate(i: int, target: Tensor, weights: Tensor) -> Tensor:
            low, high = torch.full_like(target, -20), torch.full_like(target, 20)
            for _ in range(80):
                middle = (low + high) / 2
                t = (middle[:, None] - loc[:, i]) / log_scale[:, i].exp()
                below = (weights * torch.special.ndtr(t)).sum(-1) < target
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            return (low + high) / 2

        def posterior(first: Tensor) -> Tensor:
            t = (first[:, None] - loc[:, 0]) / log_scale[:, 0].exp()
            return (log_weights - 0.5 * t.square() - log_scale[:, 0]).softmax(-1)

        first = coordinate(0, targets[0], log_weights.softmax(-1))
        return torch.stack([first, coordinate(1, targets[1], posterior(first))], -1)

    weights = LOGITS.log_softmax(-1)
    t = (z[:, None] - LOC) / LOG_SCALE.exp()
    given = (weights - 0.5 * t[..., 0].square() - LOG_SCALE[:, 0]).softmax(-1)
    targets = [(w * torch.special.ndtr(t[..., i])).sum(-1) for i, w in enumerate((weights.exp(), given))]

    parameters = [value.clone().requires_grad_() for value in (weights, LOC, LOG_SCALE)]
    probe = torch.randn(4, 2, dtype=torch.float64)
    analytic = torch.autograd.grad((implicit_mixture(z, *parameters) * probe).sum(), parameters)
    step = 1e-5
    for index, value in enumerate(parameters):
        for place in range(value.numel()):
            ends = []
            for sign in (1, -1):
                changed = [p.detach().clone() for p in parameters]
                changed[index].view(-1)[place] += sign * step
                ends.append((flow_of_quantiles(*changed) * probe).sum())
            numeric = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(analytic[index].view(-1)[place], numeric, rtol=1e-4, atol=1e-6)


def test_student_t_gradient_and_density() -> None:
    base = StudentTBase(1, 1, scale=0.4).double()
    context = torch.zeros(1, 1, dtype=torch.float64)
    loc, log_scale, freedom = (value.detach() for value in base._student(context))
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    reference = torch.distributions.StudentT(freedom, loc, log_scale.exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(base.log_prob(z, context).detach(), reference)

    def bounded(value: Tensor) -> Tensor:
        return torch.sigmoid(3 * value + 1)

    line = torch.linspace(-200, 200, 400001, dtype=torch.float64)[:, None]
    expected = (base.log_prob(line, context).exp() * bounded(line[:, 0])).sum() * (line[1, 0] - line[0, 0])
    exact = torch.autograd.grad(expected, base.free)[0]
    rows = [torch.autograd.grad(bounded(base.draw(context, 10000)[0]).mean(), base.free)[0] for _ in range(30)]
    mean, error = torch.stack(rows).mean(0), torch.stack(rows).std(0) / math.sqrt(30)
    assert bool(((mean - exact).abs() < 4.5 * error + 1e-7).all())


def test_mixture_samples_follow_weights_and_components() -> None:
    base = MixtureBase(2, 1, 3).double()
    with torch.no_grad():
        base.free.copy_(torch.cat([LOC, base.free[:, 2:4], LOGITS[:, None]], 1))
    for gradient in ("implicit", "straight_through"):
        base.gradient = gradient
        with torch.no_grad():
            z, log_prob = base.draw(torch.zeros(1, 1, dtype=torch.float64), 100000)
        loc, _, _ = base.parameters_of(torch.zeros(1, 1, dtype=torch.float64))
        nearest = torch.cdist(z[0], loc[0]).argmin(-1)  # components five sigmas apart
        shares = torch.bincount(nearest, minlength=3) / 100000
        torch.testing.assert_close(shares.double(), LOGITS.softmax(-1), rtol=0, atol=0.006)
        again = base.log_prob(z, torch.zeros(1, 1, 1, dtype=torch.float64))
        torch.testing.assert_close(again, log_prob, rtol=0, atol=1e-9)


def test_unknown_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="implicit or straight_through"):
        MixtureBase(2, 3, gradient="soft")
