from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rml_meta import irm_penalty, std_penalty, vrex_penalty
from torch import Tensor


def by_autograd(logits: Tensor, labels: Tensor) -> Tensor:
    """Equation 2 as it stands: differentiate the risk in w."""
    w = torch.ones((), dtype=logits.dtype, requires_grad=True)
    (g,) = torch.autograd.grad(F.cross_entropy(w * logits, labels), w, create_graph=True)
    return g.square()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_closed_form_is_autograd(scale: float) -> None:
    logits = (scale * torch.randn(20, 5, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(5, (20,))
    ours, theirs = irm_penalty(logits, labels), by_autograd(logits, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    grads = [torch.autograd.grad(value, logits)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-15)


def test_gradcheck_and_leading_dimensions() -> None:
    logits = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (2, 3, 6))
    assert torch.autograd.gradcheck(lambda z: irm_penalty(z, labels), logits)
    whole = irm_penalty(logits, labels)
    assert whole.shape == (2, 3)
    torch.testing.assert_close(whole[1, 2], by_autograd(logits[1, 2], labels[1, 2]))


def test_unbiased_is_the_mean_over_pairs() -> None:
    logits, labels = torch.randn(5, 3, dtype=torch.float64), torch.randint(3, (5,))
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    (each,) = torch.autograd.grad(F.cross_entropy(w[:, None] * logits, labels, reduction="sum"), w)
    pairs = [float(each[a] * each[b]) for a in range(5) for b in range(5) if a != b]
    assert float(irm_penalty(logits, labels, unbiased=True)) == pytest.approx(np.mean(pairs), rel=1e-12)
    with pytest.raises(ValueError, match="at least 2 samples"):
        irm_penalty(logits[:1], labels[:1], unbiased=True)


def test_half_precision_is_computed_in_single() -> None:
    logits, labels = 8 * torch.randn(50, 4), torch.randint(4, (50,))
    expected = irm_penalty(logits.bfloat16().float(), labels)
    torch.testing.assert_close(irm_penalty(logits.bfloat16(), labels), expected)


def test_spread_of_risks() -> None:
    risks = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(vrex_penalty(risks).detach(), torch.from_numpy(np.var(risks.detach().numpy(), axis=-1)))
    torch.testing.assert_close(std_penalty(risks).detach(), torch.from_numpy(np.std(risks.detach().numpy(), axis=-1)))
    assert torch.autograd.gradcheck(vrex_penalty, risks)
    assert torch.autograd.gradcheck(std_penalty, risks)


def test_deviation_of_equal_risks_has_no_nan() -> None:
    risks = torch.ones(4, requires_grad=True)
    std_penalty(risks).backward()
    assert risks.grad is not None
    assert risks.grad.tolist() == [0.0] * 4


def test_no_environment() -> None:
    with pytest.raises(ValueError, match="at least one environment"):
        vrex_penalty(torch.zeros(2, 0))
