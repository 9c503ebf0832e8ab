"""The eight divergences against scipy, closed forms and each other."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import DIVERGENCES
from fdiv_noisy.divergences import get, wright_omega
from fdiv_noisy.losses.compat import PUBLISHED
from scipy.optimize import minimize_scalar
from scipy.special import wrightomega

NAMES = sorted(DIVERGENCES)

# D_f written out, independently of f
CLOSED = {
    "tv": lambda p, q: 0.5 * (p - q).abs().sum(-1),
    "js": lambda p, q: (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()).sum(-1),
    "pearson": lambda p, q: ((p - q) ** 2 / q).sum(-1),
    "neyman": lambda p, q: ((p - q) ** 2 / p).sum(-1),
    "kl": lambda p, q: (p * (p / q).log()).sum(-1),
    "reverse_kl": lambda p, q: (q * (q / p).log()).sum(-1),
    "jeffrey": lambda p, q: ((p - q) * (p / q).log()).sum(-1),
    "sq_hellinger": lambda p, q: ((p.sqrt() - q.sqrt()) ** 2).sum(-1),
}


def distributions(n: int = 50, k: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    p, q = torch.rand(2, n, k, dtype=torch.float64, generator=generator) + 0.02
    return p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)


def interior(name: str) -> torch.Tensor:
    low, high = DIVERGENCES[name].domain
    return torch.linspace(max(low, -1.9) + 1e-6, min(high, 1.5) - 1e-3, 41, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_is_the_supremum_that_scipy_finds(name: str) -> None:
    d = DIVERGENCES[name]
    for u in interior(name):
        # over log v, so that the maximum is inside the bracket for every divergence
        found = minimize_scalar(
            lambda s, u=u: float(d.f(torch.tensor(math.exp(s), dtype=torch.float64)) - u * math.exp(s)),
            bounds=(-14, 14),
            method="bounded",
            options={"xatol": 1e-12},
        )
        assert -found.fun == pytest.approx(float(d.conjugate(u)), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_variational_form_at_optimal_g_is_the_divergence(name: str) -> None:
    d = DIVERGENCES[name]
    p, q = distributions()
    g = d.optimal_g(p / q)
    variational = (p * g - q * d.conjugate(g)).sum(-1)
    torch.testing.assert_close(variational, CLOSED[name](p, q), rtol=0, atol=1e-12)
    torch.testing.assert_close(d.between(p, q), CLOSED[name](p, q), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_any_other_g_gives_less(name: str) -> None:
    d = DIVERGENCES[name]
    p, q = distributions()
    low, high = d.domain
    g = torch.empty_like(p).uniform_(max(low, -3.0), min(high, 3.0))
    assert ((p * g - q * d.conjugate(g)).sum(-1) <= d.between(p, q) + 1e-12).all()


@pytest.mark.parametrize("name", NAMES)
def test_fixed_g_increases_within_the_domain_and_its_conjugate_is_closed(name: str) -> None:
    d = DIVERGENCES[name]
    v = torch.linspace(0, 1, 1001, dtype=torch.float64)
    g = d.g(v)
    assert (g.diff() > 0).all()
    assert (g >= d.domain[0]).all()
    assert (g <= d.domain[1]).all()
    torch.testing.assert_close(d.conjugate_g(v), d.conjugate(g), rtol=0, atol=1e-12)
    assert (d.conjugate_g(v).diff() > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_f_vanishes_at_one_and_is_convex(name: str) -> None:
    v = torch.linspace(0.05, 4, 400, dtype=torch.float64)
    f = DIVERGENCES[name].f
    assert float(f(torch.ones((), dtype=torch.float64))) == 0
    assert (f(v).diff().diff() > -1e-12).all()


@pytest.mark.parametrize("name", ["reverse_kl", "sq_hellinger", "neyman"])
def test_published_forms_reward_the_wrong_label(name: str) -> None:
    v = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    assert (PUBLISHED[name].g(v).diff() < 0).all()
    assert (DIVERGENCES[name].g(v).diff() > 0).all()


def test_published_jeffrey_is_a_taylor_polynomial() -> None:
    v = torch.linspace(-1, 1, 201, dtype=torch.float64)
    error = (PUBLISHED["jeffrey"].conjugate_g(v) - DIVERGENCES["jeffrey"].conjugate_g(v)).abs()
    assert float(error.max()) == pytest.approx(0.0179, abs=5e-4)


def test_wright_omega_agrees_with_scipy_and_has_exact_derivatives() -> None:
    z = torch.linspace(-60, 500, 801, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(wright_omega(z), torch.from_numpy(wrightomega(z.detach().numpy())), rtol=1e-13, atol=0)
    z = torch.linspace(-3, 5, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(wright_omega, z)
    assert torch.autograd.gradgradcheck(wright_omega, z)


def test_unknown_divergence_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown divergence 'kll': expected one of .*kl"):
        get("kll")
