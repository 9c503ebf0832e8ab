"""Every loss where its input is unusual: what is taken is right, what is not is refused in one sentence."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from fdiv_noisy import (
    DIVERGENCES,
    BackwardCorrection,
    DMILoss,
    FDivergenceLoss,
    ForwardCorrection,
    GCELoss,
    MAELoss,
    NCERCELoss,
    PairConditionalLoss,
    PeerLoss,
    SCELoss,
    Sparse,
    WarmUp,
    as_hf_loss,
    class_prior,
    piecewise_linear,
)
from fdiv_noisy.divergences import Divergence
from fdiv_noisy.labels import make_labels
from fdiv_noisy.losses.compat import PUBLISHED, SparseWithoutMembership
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

K = 4
NOISE = torch.eye(K, dtype=torch.float64) * 0.6 + 0.1
PAIRS = torch.tensor([[0, 2], [3, 1]])
PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
LOSSES = {
    **{name: FDivergenceLoss(name) for name in DIVERGENCES},
    "exact": FDivergenceLoss("kl", product="exact"),
    "prior": FDivergenceLoss("js", product="exact", prior=PRIOR),
    "corrected": FDivergenceLoss("tv", transition=NOISE),
    "smoothed": FDivergenceLoss("kl", product="exact", label_smoothing=0.1),
    "weighted": FDivergenceLoss("kl", product="exact", weight=PRIOR),
    "pairs": PairConditionalLoss(PAIRS, PRIOR),
    "forward": ForwardCorrection(NOISE),
    "backward": BackwardCorrection(NOISE),
    "gce": GCELoss(),
    "gce smoothed": GCELoss(label_smoothing=0.1),
    "gce weighted": GCELoss(weight=PRIOR),
    "sce": SCELoss(),
    "mae": MAELoss(),
    "nce": NCERCELoss(),
    "peer": PeerLoss(),
    "dmi": DMILoss(),
}
SHIFTED = (*DIVERGENCES, "corrected", "peer")


def batch(n: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, K, dtype=dtype, generator=generator), torch.randint(K, (n,), generator=generator)


def sent(thing):
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  # our own


def seeded(loss: nn.Module, *arguments: Tensor) -> Tensor:
    torch.manual_seed(1)
    return loss(*arguments)


class Model(nn.Module):
    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.net, self.criterion = nn.Linear(3, K), criterion


EXTRA = {
    **{f"published {name}": FDivergenceLoss(d) for name, d in PUBLISHED.items()},
    "published sparse": FDivergenceLoss("tv", transition=SparseWithoutMembership(Sparse(PAIRS, PRIOR.view(2, 2), K))),
    "warm-up": WarmUp(nn.CrossEntropyLoss(), FDivergenceLoss("kl"), epochs=0),
}


def test_a_loss_says_whether_it_is_corrected() -> None:
    assert "corrected" in repr(FDivergenceLoss("tv", transition=torch.eye(2) * 0.8 + 0.1))
    assert "corrected" not in repr(FDivergenceLoss("tv"))


@pytest.mark.parametrize("name", [*LOSSES, *EXTRA])
def test_copies_and_pickles_give_the_same_loss(name: str) -> None:
    loss = (LOSSES | EXTRA)[name]
    file = io.BytesIO()
    torch.save(Model(loss), file)
    file.seek(0)
    copies = [sent(loss), copy.deepcopy(loss), torch.load(file, weights_only=False).criterion]
    for other in copies:
        assert torch.equal(seeded(other, *batch()), seeded(loss, *batch()))
        assert repr(other) == repr(loss)


def test_functions_pickle_too() -> None:
    ramp = piecewise_linear([(2, 0.0), (4, 1.0)])
    assert sent(ramp)(3) == ramp(3) == 0.5
    loss = sent(as_hf_loss(MAELoss()))
    assert torch.equal(loss((batch()[0],), batch()[1]), MAELoss()(*batch()))
    own = Divergence("own", torch.square, torch.abs, (0.0, 1.0), torch.exp, torch.tanh, torch.tanh)
    assert sent(own) == own


def loss_elsewhere(runtime, loss: nn.Module) -> float:
    return float(loss(*batch()))


def test_losses_go_to_another_process(two_ranks) -> None:
    exact = [FDivergenceLoss(name, product="exact") for name in DIVERGENCES]
    for loss in (*exact, LOSSES["forward"], LOSSES["pairs"]):
        assert two_ranks(loss_elsewhere, loss) == [float(loss(*batch()))] * 2


@pytest.mark.parametrize("wrong", [-1, K, -7])
@pytest.mark.parametrize("name", LOSSES)
def test_a_target_that_is_no_class_is_refused(name: str, wrong: int) -> None:
    logits, targets = batch()
    targets[2] = wrong
    with pytest.raises(ValueError, match=r"targets must be classes 0\.\.K-1, or ignore_index"):
        LOSSES[name](logits, targets)


@pytest.mark.parametrize("name", LOSSES)
def test_minus_one_is_ignored_if_it_is_asked_for(name: str) -> None:
    loss = copy.deepcopy(LOSSES[name])
    loss.ignore_index = -1
    logits, targets = batch(7)
    fewer = torch.arange(7) != 3
    targets[3] = -1
    if name in SHIFTED:  # one of the two terms is random: that of the labels is not
        return
    torch.testing.assert_close(loss(logits, targets), loss(logits[fewer], targets[fewer]))


@pytest.mark.parametrize("name", SHIFTED)
def test_the_short_way_is_the_long_way(name: str) -> None:
    loss = LOSSES[name]
    logits, targets = batch()
    weighted = copy.deepcopy(loss)
    if name != "corrected":
        weighted.weight = torch.ones(K, dtype=torch.float64)  # weights lead the long way
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    short, long = seeded(loss, one, targets), seeded(weighted, other, targets)
    torch.testing.assert_close(short, long, rtol=1e-12, atol=1e-14)
    grads = torch.autograd.grad(short, one)[0], torch.autograd.grad(long, other)[0]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["exact", "prior", "gce", "sce", "mae", "nce", "forward"])
def test_no_ignore_index_and_soft_labels_are_the_same_loss(name: str, reduction: str) -> None:
    logits, targets = batch()
    loss = copy.deepcopy(LOSSES[name])
    loss.reduction = reduction
    expected = loss(logits, targets)
    soft = nn.functional.one_hot(targets, K).double()
    torch.testing.assert_close(loss(logits, soft), expected)
    loss.ignore_index = None
    torch.testing.assert_close(loss(logits, targets), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_one_logit_and_flags_are_refused(name: str) -> None:
    for targets in (torch.randint(2, (8, 1)).float(), torch.zeros(8, dtype=torch.int64)):
        with pytest.raises(ValueError, match="two outputs"):
            LOSSES[name](torch.randn(8, 1), targets)
    with pytest.raises(ValueError, match=r"got torch\.bool"):
        LOSSES[name](batch()[0], torch.ones(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="logits must be floats"):
        LOSSES[name](torch.ones(6, K, dtype=torch.int64), batch()[1])


@pytest.mark.parametrize("name", LOSSES)
def test_logits_with_the_classes_last_are_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(ValueError, match=r"logits\.movedim\(-1, 1\)"):
        LOSSES[name](torch.randn(2, 5, K), torch.randint(K, (2, 5)))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dmi"])
def test_one_sample_without_a_batch(name: str) -> None:
    logits, targets = batch()
    loss = copy.deepcopy(LOSSES[name])
    for reduction in ("mean", "sum", "none"):
        loss.reduction = reduction
        alone = loss(logits[0], targets[0])
        assert alone.shape == ()
        torch.testing.assert_close(alone, loss(logits[:1], targets[:1]).view(()))
    if name != "pairs":
        soft = targets.new_tensor([1, 0, 0, 0]).double()
        torch.testing.assert_close(loss(logits[0], soft), loss(logits[:1], soft[None]).view(()))


MASKED = [name for name in LOSSES if name not in ("backward", "smoothed", "gce smoothed")]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", MASKED)
def test_masked_logits_are_the_limit_of_very_low_ones(name: str, soft: bool) -> None:
    if (soft and name == "pairs") or name == "dmi":
        return
    logits, targets = batch()
    targets = targets % 3
    low, masked = logits.clone(), logits.clone()
    low[:, 3], masked[:, 3] = -1e4, -torch.inf
    if name == "nce":  # a masked class is no class for it, where a class of probability zero would count without end
        low = logits[:, :3].clone()
    masked.requires_grad_()
    labels = nn.functional.one_hot(targets, K).double() if soft else targets
    value = seeded(LOSSES[name], masked, labels)
    expected = seeded(LOSSES[name], low, labels[:, :3] if soft and name == "nce" else labels)
    torch.testing.assert_close(value, expected)
    (grad,) = torch.autograd.grad(value, masked)
    assert grad.isfinite().all()
    assert grad[:, 3].abs().max() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_meta_tensors_pass(name: str) -> None:
    logits, targets = (x.to("meta") for x in batch())
    assert LOSSES[name].to("meta")(logits, targets).shape == ()
    LOSSES[name].to_empty(device="cpu")
    LOSSES[name].load_state_dict(SAVED[name])


SAVED = {name: copy.deepcopy(loss.state_dict()) for name, loss in LOSSES.items()}


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dmi"])
def test_vmap_with_randomness_of_its_own(name: str) -> None:
    logits = torch.randn(3, 6, K, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _, targets = batch()
    torch.manual_seed(0)
    values = torch.func.vmap(lambda one: LOSSES[name](one, targets), randomness="different")(logits)
    if name not in SHIFTED:
        torch.testing.assert_close(values, torch.stack([LOSSES[name](one, targets) for one in logits]))
        return
    for one, value in zip(logits, values, strict=True):  # each is the loss of one of the shifts
        every = {round(float(seeded_shift(LOSSES[name], one, targets, s)), 10) for s in range(1, 6)}
        assert round(float(value), 10) in every


def seeded_shift(loss: nn.Module, logits: Tensor, targets: Tensor, shift: int) -> Tensor:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "randint", lambda *a, **k: torch.tensor(shift))
        return loss(logits, targets)


SPARSE = Sparse(torch.tensor([[0, 1]]), torch.tensor([[0.3, 0.2]], dtype=torch.float64), K)


@pytest.mark.parametrize("noise", [torch.eye(K, dtype=torch.float64), SPARSE, NOISE], ids=["none", "pair", "all"])
@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
def test_forward_correction_in_log_space(noise: Tensor | Sparse, size: float) -> None:
    matrix = noise if isinstance(noise, Tensor) else noise.matrix()
    logits, targets = batch()
    logits = (logits * size).requires_grad_()
    log_p = logits.log_softmax(1)
    every = torch.logsumexp(log_p[:, :, None] + matrix.log(), 1)
    expected = -every.gather(1, targets[:, None])[:, 0]
    loss = ForwardCorrection(noise, reduction="none")
    actual = loss(logits, targets)
    torch.testing.assert_close(actual, expected)
    (grad,) = torch.autograd.grad(actual.sum(), logits, retain_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), logits)[0])
    soft = nn.functional.one_hot(targets, K).double()
    close = expected.detach() < 600  # beyond it soft labels have no gradient
    torch.testing.assert_close(loss(logits, soft)[close], expected[close])


def test_forward_correction_of_soft_labels_is_finite_where_a_probability_underflows() -> None:
    logits = torch.tensor([[0.0, 2000.0]], dtype=torch.float64, requires_grad=True)
    loss = ForwardCorrection(torch.eye(2, dtype=torch.float64))(logits, torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert 300 < float(loss.detach()) < 400
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_forward_correction_follows_a_loaded_matrix() -> None:
    loss, other = ForwardCorrection(NOISE), ForwardCorrection(torch.eye(K, dtype=torch.float64))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(*batch()), loss(*batch()))
    assert set(loss.state_dict()) == {"matrix"}


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dmi"])
def test_a_batch_without_a_label_costs_nothing(name: str) -> None:
    logits = batch()[0].requires_grad_()
    loss = LOSSES[name](logits, torch.full((6,), -100))
    (grad,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert grad.abs().max() == 0


def test_pairs_that_no_label_was_seen_of() -> None:
    logits, targets = batch()
    loss = PairConditionalLoss(PAIRS, torch.tensor([0.0, 0.5, 0.0, 0.5], dtype=torch.float64))
    assert loss(logits, targets).isfinite()


def test_peers_without_a_label_have_no_product() -> None:
    logits, targets = batch()
    none = torch.full((6,), -100)
    loss = FDivergenceLoss("tv", product="external")
    joint = -(logits.softmax(1).gather(1, targets[:, None]).tanh() / 2).mean()
    torch.testing.assert_close(loss(logits, targets, peer_logits=logits, peer_targets=none), joint)


def test_class_prior() -> None:
    labels = torch.tensor([[0, 2], [2, -100]])
    torch.testing.assert_close(class_prior(labels, 4), torch.tensor([1 / 3, 0.0, 2 / 3, 0.0]))
    assert class_prior(torch.tensor([-100]), 3).tolist() == [0, 0, 0]
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.3"):
            class_prior(torch.tensor([0, wrong]), 4)


def test_ignored_labels_never_count_even_with_smoothing_or_correction() -> None:
    logits, targets = batch()
    targets[1] = -100
    for options in ({"label_smoothing": 0.2}, {"coefficients": NOISE.inverse()}):
        labels = make_labels(targets, logits, **options)
        assert labels.mass is not None
        assert labels.mass[1].abs().max() == 0
        assert labels.weight.tolist() == pytest.approx([1, 0, 1, 1, 1, 1])


class Tokens:
    logits = torch.randn(2, 12, K, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_hugging_face_tokens_have_their_classes_last() -> None:
    loss = as_hf_loss(MAELoss())
    labels = torch.randint(K, (2, 12))
    labels[0, 3] = -100
    flat = MAELoss()(Tokens.logits.reshape(-1, K), labels.reshape(-1))
    torch.testing.assert_close(loss(Tokens(), labels), flat)
    torch.testing.assert_close(loss(Tokens(), labels, num_items_in_batch=46), flat * 23 / 46)
    square = Tokens.logits[:, :K]  # as many tokens as classes: still the last dimension
    torch.testing.assert_close(
        loss((square,), labels[:, :K]), MAELoss()(square.reshape(-1, K), labels[:, :K].flatten())
    )
    soft = Tokens.logits.softmax(-1)
    torch.testing.assert_close(loss(Tokens(), soft), MAELoss()(Tokens.logits.reshape(-1, K), soft.reshape(-1, K)))
    image, marks = torch.randn(2, K, 5, 6, dtype=torch.float64), torch.randint(K, (2, 5, 6))
    torch.testing.assert_close(loss((image,), marks), MAELoss()(image, marks))


def test_a_class_that_the_network_excludes_costs_cross_entropy_without_end() -> None:
    # the loss of an impossible label is infinite for cross-entropy, and so for forward correction without noise
    logits = torch.tensor([[0.0, -torch.inf]])
    assert float(ForwardCorrection(torch.eye(2))(logits, torch.tensor([1]))) == math.inf
    assert float(cross_entropy(logits, torch.tensor([1]))) == math.inf
