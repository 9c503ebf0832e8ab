"""FDivergenceLoss against plain loops over pairs, and as a drop-in for nn.CrossEntropyLoss."""

from __future__ import annotations

import itertools

import pytest
import torch
from fdiv_noisy import DIVERGENCES, FDivergenceLoss, Uniform, class_prior, f_divergence_loss
from torch import Tensor

NAMES = sorted(DIVERGENCES)
B, K = 7, 4


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(B, K, dtype=dtype, generator=generator) * 2, torch.randint(K, (B,), generator=generator)


def loop(name: str, logits: Tensor, rows: Tensor, alpha: float = 1.0) -> Tensor:
    """The loss as a sum over every sample and every ordered pair of samples; ``rows`` (B, K) is the labels' mass."""
    d = DIVERGENCES[name]
    p = logits.softmax(1)
    weight = rows.sum(1)
    joint = sum(rows[n, k] * d.g(p[n, k]) for n in range(len(p)) for k in range(K)) / weight.sum()
    total, pairs = torch.zeros(()), torch.zeros(())
    for n, m in itertools.permutations(range(len(p)), 2):
        total = total + weight[n] * sum(rows[m, k] * d.conjugate_g(p[n, k]) for k in range(K))
        pairs = pairs + weight[n] * weight[m]
    return alpha * total / pairs - joint


def onehot(targets: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(targets, K).double()


def every_shift(logits: Tensor, targets: Tensor, name: str, monkeypatch: pytest.MonkeyPatch, **options) -> Tensor:
    losses = []
    for s in range(1, len(targets)):
        monkeypatch.setattr(torch, "randint", lambda *a, s=s, **k: torch.tensor(s))
        losses.append(f_divergence_loss(logits, targets, name, product="shift", **options))
    monkeypatch.undo()
    return torch.stack(losses).mean(0)


@pytest.mark.parametrize("name", NAMES)
def test_exact_product_is_the_mean_over_all_pairs(name: str) -> None:
    logits, targets = batch()
    expected = loop(name, logits, onehot(targets), alpha=0.7)
    actual = f_divergence_loss(logits, targets, name, product="exact", alpha=0.7)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_shifted_products_over_all_shifts_are_the_mean_over_all_pairs(
    name: str, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = batch()
    expected = loop(name, logits, onehot(targets), alpha=alpha)
    actual = every_shift(logits, targets, name, monkeypatch, alpha=alpha)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


OPTIONS = {
    "plain": {},
    "weights": {"weight": torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)},
    "ignored": {"ignore_index": 2},
    "smoothing": {"label_smoothing": 0.3},
    "corrected": {"correction": Uniform(torch.tensor([0.1, 0.2, 0.05, 0.1], dtype=torch.float64)).coefficients()},
    "all": {
        "weight": torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64),
        "ignore_index": 2,
        "label_smoothing": 0.1,
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["tv", "js", "jeffrey"])
def test_mean_over_all_shifts_is_the_exact_product(
    name: str, reduction: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = batch()
    shifted = every_shift(logits, targets, name, monkeypatch, reduction=reduction, **options)
    exact = f_divergence_loss(logits, targets, name, product="exact", reduction=reduction, **options)
    torch.testing.assert_close(shifted, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_shift_never_pairs_a_sample_with_itself(name: str) -> None:
    # one sample per class: with the label's own probability 1 a self-pair would show as f*(g(1)) instead of f*(g(0))
    logits = torch.eye(5, dtype=torch.float64) * 200
    d = DIVERGENCES[name]
    for _ in range(20):
        loss = f_divergence_loss(logits, torch.arange(5), name)
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        torch.testing.assert_close(loss, d.conjugate_g(zero) - d.g(one), rtol=0, atol=1e-12)


def test_weights_smoothing_and_soft_labels_are_label_mass() -> None:
    logits, targets = batch()
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    soft = torch.rand(B, K, dtype=torch.float64).softmax(1)
    exact = {"product": "exact"}
    cases = [
        (f_divergence_loss(logits, targets, "js", weight=weight, **exact), onehot(targets) * weight),
        (f_divergence_loss(logits, targets, "js", label_smoothing=0.3, **exact), onehot(targets) * 0.7 + 0.3 / K),
        (f_divergence_loss(logits, soft, "js", **exact), soft),
        (
            f_divergence_loss(logits, soft, "js", weight=weight, label_smoothing=0.2, **exact),
            (soft * 0.8 + 0.05) * weight,
        ),
    ]
    for actual, mass in cases:
        torch.testing.assert_close(actual, loop("js", logits, mass), rtol=0, atol=1e-12)


@pytest.mark.parametrize("product", ["shift", "exact"])
def test_ignored_samples_count_for_nothing(product: str) -> None:
    logits, targets = batch()
    kept = torch.tensor([0, 2, 3, 5])
    masked = torch.full_like(targets, -100)
    masked[kept] = targets[kept]
    if product == "exact":
        expected = f_divergence_loss(logits[kept], targets[kept], "kl", product="exact")
        torch.testing.assert_close(f_divergence_loss(logits, masked, "kl", product="exact"), expected)
    logits.requires_grad_()
    f_divergence_loss(logits, masked, "kl", product=product).backward()
    assert logits.grad is not None
    assert (logits.grad[masked == -100] == 0).all()
    assert (logits.grad[kept].abs().sum(1) > 0).all()


@pytest.mark.parametrize("product", ["shift", "exact"])
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_labels_give_a_finite_loss_and_gradient(product: str, n: int) -> None:
    logits = torch.randn(5, K, requires_grad=True)
    targets = torch.full((5,), -100)
    targets[:n] = 1
    loss = f_divergence_loss(logits, targets, "js", product=product)
    loss.backward()
    assert logits.grad is not None
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    if n == 0:
        assert loss.item() == 0
    single = f_divergence_loss(logits[:1], targets[:1], "js", product=product)
    assert single.isfinite()


def test_external_is_algorithm_1() -> None:
    logits, targets = batch()
    generator = torch.Generator().manual_seed(8)
    peer_logits = torch.randn(B, K, dtype=torch.float64, generator=generator)
    peer_targets = torch.randint(K, (B,), generator=generator)
    loss = FDivergenceLoss("js", product="external")
    p, q = logits.softmax(1), peer_logits.softmax(1)
    d = DIVERGENCES["js"]
    joint = torch.stack([d.g(p[n, targets[n]]) for n in range(B)]).mean()
    product = torch.stack([d.conjugate_g(q[n, peer_targets[n]]) for n in range(B)])
    actual = loss(logits, targets, peer_logits=peer_logits, peer_targets=peer_targets)
    torch.testing.assert_close(actual, product.mean() - joint, rtol=0, atol=1e-12)
    fewer = loss(logits, targets, peer_logits=peer_logits[:3], peer_targets=peer_targets[:3])
    torch.testing.assert_close(fewer, product[:3].mean() - joint, rtol=0, atol=1e-12)


@pytest.mark.parametrize("product", ["shift", "exact", "external"])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = batch()
    monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.tensor(3))
    peers = {"peer_logits": logits.flip(0), "peer_targets": targets.roll(2)} if product == "external" else {}

    def loss(x: Tensor) -> Tensor:
        return f_divergence_loss(x, targets, name, product=product, reduction="none", **peers)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_raises_the_label_and_lowers_the_peer(name: str) -> None:
    p = torch.linspace(0.05, 0.95, 10, dtype=torch.float64, requires_grad=True)
    d = DIVERGENCES[name]
    (g,) = torch.autograd.grad(d.g(p).sum(), p)
    (c,) = torch.autograd.grad(d.conjugate_g(p).sum(), p)
    assert (g > 0).all()
    assert (c > 0).all()


@pytest.mark.parametrize("product", ["shift", "exact"])
def test_dense_prediction_is_the_flattened_batch(product: str) -> None:
    logits = torch.randn(2, K, 3, 5, dtype=torch.float64)
    targets = torch.randint(K, (2, 3, 5))
    g1, g2 = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    loss = FDivergenceLoss("kl", product=product, reduction="none", generator=g1)
    dense = loss(logits, targets)
    assert dense.shape == targets.shape
    loss.generator = g2
    flat = loss(logits.movedim(1, -1).reshape(-1, K), targets.reshape(-1))
    torch.testing.assert_close(dense.reshape(-1), flat)


def test_prior_replaces_the_batch_frequencies() -> None:
    logits, targets = batch()
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    d = DIVERGENCES["kl"]
    p = logits.softmax(1)
    expected = (d.conjugate_g(p) @ prior).mean() - d.g(p[range(B), targets]).mean()
    actual = FDivergenceLoss("kl", product="exact", prior=prior)(logits, targets)
    torch.testing.assert_close(actual, expected)
    # the mean of two halves is the whole: what makes the gradient the same under DistributedDataParallel
    halves = [f_divergence_loss(x, y, "kl", product="exact", prior=prior) for x, y in ((logits[:3], targets[:3]),)]
    rest = f_divergence_loss(logits[3:], targets[3:], "kl", product="exact", prior=prior)
    torch.testing.assert_close((halves[0] * 3 + rest * 4) / 7, expected)


# balanced, ten classes: what the paper's figure 1 tends to, worked out by hand from g(0), g(1/K), g(1)
LEVELS = {
    "perfect": {"tv": 0.3427, "js": 0.3179, "pearson": 0.8750, "neyman": 0.5534, "kl": 0.5689, "reverse_kl": 0.5321,
                "jeffrey": 0.8670, "sq_hellinger": 0.4603},
    "uniform": {"tv": 0.0, "js": -0.0025, "pearson": -0.0025, "kl": -0.3066, "sq_hellinger": -0.0100},
    "constant": {"tv": 0.0, "js": -0.0240, "pearson": -0.0250, "kl": -0.3311, "sq_hellinger": -0.1086},
}  # fmt: skip


@pytest.mark.parametrize("situation", LEVELS)
def test_divergence_levels_of_known_classifiers(situation: str) -> None:
    k, n = 10, 4000
    targets = torch.arange(n) % k
    scores = {
        "perfect": torch.nn.functional.one_hot(targets, k) * 200.0,
        "uniform": torch.zeros(n, k),
        "constant": torch.eye(k)[0].expand(n, k) * 200.0,
    }[situation].double()
    prior = class_prior(targets, k).double()
    for name, value in LEVELS[situation].items():
        loss = FDivergenceLoss(name, product="exact", prior=prior)
        assert float(loss.divergence(scores, targets)) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype: torch.dtype) -> None:
    logits, targets = batch(torch.float32)
    loss = f_divergence_loss(logits.to(dtype), targets, "js", product="exact")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, f_divergence_loss(logits.to(dtype).float(), targets, "js", product="exact"))


def test_autocast() -> None:
    model = torch.nn.Linear(6, K)
    x, targets = torch.randn(B, 6), torch.randint(K, (B,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FDivergenceLoss("kl", product="exact")(model(x), targets)
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.isfinite().all()


@pytest.mark.parametrize("product", ["shift", "exact"])
def test_compiles_without_a_graph_break(product: str) -> None:
    logits, targets = batch(torch.float32)
    loss = FDivergenceLoss("tv", product=product)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits.requires_grad_()
    value = compiled(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if product == "exact":
        torch.testing.assert_close(value, loss(logits, targets))


def test_torch_func_gradient_is_autograd() -> None:
    logits, targets = batch()
    loss = FDivergenceLoss("js", product="exact")
    expected = torch.autograd.grad(loss(logits.requires_grad_(), targets), logits)[0]
    torch.testing.assert_close(torch.func.grad(loss)(logits.detach(), targets), expected)
    many = torch.func.vmap(loss)(torch.stack([logits.detach()] * 2), torch.stack([targets] * 2))
    torch.testing.assert_close(many, loss(logits, targets).detach().expand(2))


def test_seeded_generator_repeats_the_shifts() -> None:
    logits, targets = batch()
    values = []
    for _ in range(2):
        loss = FDivergenceLoss("tv", generator=torch.Generator().manual_seed(5))
        values.append(torch.stack([loss(logits, targets) for _ in range(6)]))
    assert torch.equal(*values)
    assert values[0].unique().numel() > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: f_divergence_loss(x[0], y), r"targets must be class indices of shape \(\)"),
        (lambda x, y: f_divergence_loss(x[0, 0], y), r"logits must be floats of shape \(K,\)"),
        (lambda x, y: f_divergence_loss(x, y[:3]), r"targets must be class indices of shape \(7,\)"),
        (lambda x, y: f_divergence_loss(x, y, product="bogus"), "unknown product 'bogus'"),
        (lambda x, y: f_divergence_loss(x, y, reduction="avg"), "unknown reduction 'avg'"),
        (lambda x, y: f_divergence_loss(x, y, product="external"), "needs peer_logits and peer_targets"),
        (lambda x, y: FDivergenceLoss("tv", label_smoothing=2.0), r"label_smoothing must be in \[0, 1\]"),
        (lambda x, y: FDivergenceLoss("tv", prior=torch.ones(4)), 'product="exact" only'),
        (lambda x, y: FDivergenceLoss("tv", transition=torch.ones(4, 4)), "rows that sum to 1"),
        (lambda x, y: FDivergenceLoss("tv", transition=torch.full((4, 4), 0.25)), "singular"),
    ],
)
def test_bad_input_says_what_was_expected(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*batch())
