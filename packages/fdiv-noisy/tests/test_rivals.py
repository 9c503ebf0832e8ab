"""The rival losses against torch's own, plain loops and the limits their papers state."""

from __future__ import annotations

import math

import pytest
import torch
from fdiv_noisy import (
    BackwardCorrection,
    DMILoss,
    ForwardCorrection,
    GCELoss,
    MAELoss,
    NCERCELoss,
    PeerLoss,
    SCELoss,
    Uniform,
    WarmUp,
    as_hf_loss,
    piecewise_linear,
)
from torch import nn
from torch.nn.functional import cross_entropy

K = 5
NOISE = Uniform(torch.tensor([0.05, 0.1, 0.05, 0.1, 0.1], dtype=torch.float64))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, K, dtype=torch.float64, generator=generator), torch.randint(K, (8,), generator=generator)


EYE = torch.eye(K, dtype=torch.float64)
# the loss of one sample from its probabilities p (a list) and label y
FORMULAS = {
    "mae": (MAELoss(), lambda p, y: sum(abs(float(k == y) - v) for k, v in enumerate(p))),
    "gce": (GCELoss(q=0.7), lambda p, y: (1 - p[y] ** 0.7) / 0.7),
    "sce": (
        SCELoss(0.1, 1.0),
        lambda p, y: -0.1 * math.log(p[y]) + sum(4 * v for k, v in enumerate(p) if k != y),
    ),
    "nce+rce": (
        NCERCELoss(2.0, 0.5),
        lambda p, y: 2 * math.log(p[y]) / sum(map(math.log, p)) + 0.5 * 4 * (1 - p[y]),
    ),
    "forward": (
        ForwardCorrection(NOISE),
        lambda p, y: -math.log(sum(v * float(NOISE.matrix()[k, y]) for k, v in enumerate(p))),
    ),
    "backward": (
        BackwardCorrection(NOISE),
        lambda p, y: -sum(float(torch.linalg.inv(NOISE.matrix())[y, k]) * math.log(v) for k, v in enumerate(p)),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_its_formula(name: str) -> None:
    loss, formula = FORMULAS[name]
    logits, targets = batch()
    p = logits.softmax(1).tolist()
    expected = torch.tensor([formula(row, y) for row, y in zip(p, targets.tolist(), strict=True)], dtype=torch.float64)
    torch.testing.assert_close(loss(logits, targets), expected.mean())
    loss.reduction = "none"
    torch.testing.assert_close(loss(logits, targets), expected)
    soft = torch.rand(8, K, dtype=torch.float64).softmax(1)
    every = torch.stack([loss(logits, torch.full((8,), k)) for k in range(K)], 1)
    torch.testing.assert_close(loss(logits, soft), (soft * every).sum(1))
    loss.reduction = "mean"


@pytest.mark.parametrize("name", FORMULAS)
def test_gradcheck(name: str) -> None:
    loss, _ = FORMULAS[name]
    logits, targets = batch()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())


OPTIONS = [{}, {"weight": torch.rand(K, dtype=torch.float64) + 0.5}, {"ignore_index": 3}, {"label_smoothing": 0.2}]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS)
def test_without_noise_corrections_are_cross_entropy_with_its_options(options: dict, reduction: str) -> None:
    logits, targets = batch()
    expected = cross_entropy(logits, targets, reduction=reduction, **options)
    torch.testing.assert_close(ForwardCorrection(EYE, reduction=reduction, **options)(logits, targets), expected)
    if "weight" not in options:
        torch.testing.assert_close(BackwardCorrection(EYE, reduction=reduction, **options)(logits, targets), expected)


def test_gce_tends_to_cross_entropy_and_to_half_of_mae() -> None:
    logits, targets = batch()
    torch.testing.assert_close(GCELoss(q=1e-6)(logits, targets), cross_entropy(logits, targets), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(GCELoss(q=1.0)(logits, targets), MAELoss()(logits, targets) / 2)


def test_backward_correction_is_unbiased() -> None:
    logits, _ = batch()
    t = NOISE.matrix()
    loss = BackwardCorrection(t, reduction="none")
    noisy = torch.stack([loss(logits, torch.full((8,), k)) for k in range(K)], 1)  # the loss of each noisy label
    clean = -logits.log_softmax(1)
    torch.testing.assert_close(noisy @ t.T, clean)  # averaged over the flips of each true label


def test_peer_loss_over_all_shifts_is_the_product_of_marginals(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = batch()
    values = []
    for s in range(1, 8):
        monkeypatch.setattr(torch, "randint", lambda *a, s=s, **k: torch.tensor(s))
        values.append(PeerLoss(alpha=0.8, eps=1e-5)(logits, targets))
    ce = -(logits.softmax(1) + 1e-5).log()
    own = ce[range(8), targets]
    pairs = sum(ce[n, targets[m]] for n in range(8) for m in range(8) if n != m) / 56
    torch.testing.assert_close(torch.stack(values).mean(), own.mean() - 0.8 * pairs)


def test_dmi_is_the_log_determinant_and_permutation_free() -> None:
    logits, targets = batch()
    targets = torch.arange(8) % K
    u = torch.zeros(K, K, dtype=torch.float64)
    for row, y in zip(logits.softmax(1), targets, strict=True):
        u[y] += row
    torch.testing.assert_close(DMILoss()(logits, targets), -(u.det().abs() + 1e-3).log())
    torch.testing.assert_close(DMILoss()(logits[:, torch.randperm(K)], targets), DMILoss()(logits, targets))
    soft = nn.functional.one_hot(targets, K).double()
    torch.testing.assert_close(DMILoss()(logits, soft), DMILoss()(logits, targets))
    assert torch.autograd.gradcheck(lambda x: DMILoss()(x, targets), logits.requires_grad_())
    unlabelled = torch.full((1,), -100)
    more = torch.cat([logits, logits[:1]]), torch.cat([targets, unlabelled])
    torch.testing.assert_close(DMILoss()(*more), DMILoss()(logits, targets))


def test_warm_up_switches_at_its_epoch() -> None:
    logits, targets = batch()
    loss = WarmUp(nn.CrossEntropyLoss(), MAELoss(), epochs=2)
    ce, mae = cross_entropy(logits, targets), MAELoss()(logits, targets)
    for epoch, expected in enumerate([ce, ce, mae, mae]):
        loss.set_epoch(epoch)
        assert torch.equal(loss(logits, targets), expected)


def test_piecewise_linear() -> None:
    ramp = piecewise_linear([(2, 0.0), (4, 1.0), (8, 3.0)])
    assert [ramp(x) for x in (0, 2, 3, 4, 6, 8, 99)] == [0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="increasing"):
        piecewise_linear([(2, 0.0), (2, 1.0)])


class Outputs:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


def test_hugging_face_adaptor() -> None:
    logits, targets = batch()
    targets[0] = -100
    criterion = GCELoss()
    loss = as_hf_loss(criterion)
    expected = criterion(logits, targets)
    for outputs in (Outputs(logits), {"logits": logits}, (logits,), logits):
        torch.testing.assert_close(loss(outputs, targets, some_new_keyword=1), expected)
    # two accumulated micro-batches of 3 and 4 labelled items give the mean over all seven
    parts = [loss(logits[:4], targets[:4], num_items_in_batch=7), loss(logits[4:], targets[4:], num_items_in_batch=7)]
    torch.testing.assert_close(torch.stack(parts).sum(), expected)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\]"):
        GCELoss(q=1.5)
    with pytest.raises(ValueError, match="singular"):
        BackwardCorrection(torch.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="epochs must be >= 0"):
        WarmUp(MAELoss(), MAELoss(), epochs=-1)
