"""What labels amount to when options meet: one sample alone, smoothing with a prior or a correction, autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fdiv_noisy import (
    BackwardCorrection,
    DMILoss,
    FDivergenceLoss,
    ForwardCorrection,
    Sparse,
    Uniform,
    class_prior,
    f_divergence_loss,
)
from torch import Tensor, nn
from torch.nn.functional import one_hot

UNIFORM = Uniform(torch.tensor([0.1, 0.05, 0.2, 0.15], dtype=torch.float64))
SPARSE = Sparse(torch.tensor([[0, 2], [1, 3]]), torch.tensor([[0.3, 0.2], [0.1, 0.4]], dtype=torch.float64), 4)
K = 4

ALONE = {
    "smoothing": (torch.tensor([3]), {"label_smoothing": 0.1}),
    "soft": (torch.rand(1, 100).softmax(1), {}),
    "corrected": (torch.tensor([3]), {"correction": Uniform(torch.full((100,), 0.005)).coefficients()}),
    "weighted": (torch.tensor([3]), {"weight": torch.rand(100) + 0.1, "label_smoothing": 0.3}),
}


@pytest.mark.parametrize(("targets", "options"), ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("product", ["exact", "shift"])
def test_a_sample_alone_has_no_product_term(product: str, targets: Tensor, options: dict) -> None:
    logits = torch.randn(1, 100, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = f_divergence_loss(logits, targets, "kl", product=product, **options)
    without = f_divergence_loss(logits, targets, "kl", product=product, alpha=0.0, **options)
    assert torch.equal(loss, without)
    loss.backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1


def test_labels_that_need_a_gradient_have_a_finite_one_in_a_batch_of_one() -> None:
    targets = torch.rand(1, K).softmax(1).requires_grad_()
    f_divergence_loss(torch.randn(1, K), targets, "kl", product="exact").backward()
    assert targets.grad is not None
    assert targets.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.2},
        {"label_smoothing": 0.2, "weight": torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)},
        {"label_smoothing": 0.2, "transition": SPARSE},
    ],
    ids=["smoothed", "weighted", "corrected"],
)
def test_given_and_batch_prior_agree_for_a_constant_predictor(options: dict) -> None:
    # 4,000 samples: leaving one out moves the batch's prior by 1e-4
    targets = torch.arange(4000) * torch.arange(4000) % K
    logits = torch.tensor([2.0, 0.0, -1.0, 0.5], dtype=torch.float64).expand(len(targets), K)
    prior = class_prior(targets, K)
    given = FDivergenceLoss("kl", "exact", prior, **options)(logits, targets)
    batch = FDivergenceLoss("kl", "exact", **options)(logits, targets)
    assert float(given) == pytest.approx(float(batch), abs=2e-4)


def expectation(loss_of: Callable[[Tensor, Tensor], Tensor], p: Tensor, matrix: Tensor, logits: Tensor) -> Tensor:
    """The loss of the exact population: image n has clean class k with chance p[n, k], flipped by `matrix`."""
    noisy = p @ matrix
    images = logits.repeat_interleave(K, 0)
    values = loss_of(images, torch.arange(K).repeat(len(p)))
    return (values.view(len(p), K) * noisy).sum() / len(p)


@pytest.mark.parametrize(("noise", "share"), [(UNIFORM, 0.5), (UNIFORM.matrix(), 1.0)], ids=["model", "matrix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothing_leaves_the_correction_exact(noise: Uniform | Tensor, share: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(6, K, dtype=torch.float64, generator=generator).softmax(1)
    logits = torch.randn(6, K, dtype=torch.float64, generator=generator)
    eye = torch.eye(K, dtype=torch.float64)
    values = []
    for matrix, transition in ((UNIFORM.matrix(), noise), (eye, None)):
        prior = (p @ matrix).mean(0)
        options = {"label_smoothing": smoothing, "transition": transition, "reduction": "none"}
        values.append(expectation(FDivergenceLoss("js", "exact", prior, **options), p, matrix, logits))
    torch.testing.assert_close(values[0], share * values[1], rtol=1e-12, atol=1e-12)


def test_smoothing_leaves_backward_correction_unbiased() -> None:
    logits = torch.randn(6, K, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    loss = BackwardCorrection(SPARSE, label_smoothing=0.3, reduction="none")
    noisy = torch.stack([loss(logits, torch.full((6,), k)) for k in range(K)], 1)
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.3, reduction="none")
    clean = torch.stack([smoothed(logits, torch.full((6,), k)) for k in range(K)], 1)
    torch.testing.assert_close(noisy @ SPARSE.matrix().T, clean)


def test_class_weights_of_corrected_labels_are_refused() -> None:
    weight = torch.ones(K)
    for make in (
        lambda: FDivergenceLoss("tv", transition=SPARSE, weight=weight),
        lambda: BackwardCorrection(SPARSE, weight=weight),
        lambda: f_divergence_loss(
            torch.randn(3, K), torch.zeros(3).long(), correction=SPARSE.coefficients(), weight=weight
        ),
    ):
        with pytest.raises(ValueError, match="class weights cannot be combined with a bias correction"):
            make()


AUTOCAST = {
    "exact": FDivergenceLoss("kl", "exact"),
    "prior": FDivergenceLoss("kl", "exact", torch.tensor([0.4, 0.3, 0.2, 0.1])),
    "corrected": FDivergenceLoss("js", "exact", transition=UNIFORM),
    "forward": ForwardCorrection(UNIFORM),
    "backward": BackwardCorrection(UNIFORM),
    "dmi": DMILoss(),
}


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("loss", AUTOCAST.values(), ids=AUTOCAST)
def test_autocast_changes_no_value(loss: nn.Module, soft: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(64, K, generator=generator)
    labels = torch.randint(K, (64,), generator=generator)
    targets = one_hot(labels, K) * 0.7 + 0.075 if soft else labels
    expected = loss(logits, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss(logits, targets)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)
